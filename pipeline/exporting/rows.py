"""Spans as tables: CSV for spreadsheets, JSON Lines for programs."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from pipeline.exporting.spans import Span

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_csv(spans: Sequence[Span]) -> str:
    """CSV with a header. A text a spreadsheet would run as a formula gets an apostrophe in front."""
    out = io.StringIO()
    records = [_record(span) for span in spans]
    writer = csv.DictWriter(out, list(records[0]) if records else list(_COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: cell(value) for name, value in record.items()} for record in records)
    return out.getvalue()


def as_jsonl(spans: Sequence[Span]) -> str:
    """One JSON object per line, every text as it is."""
    return "".join(json.dumps(_record(span), default=str, ensure_ascii=False) + "\n" for span in spans)


_COLUMNS = ("path", "start_s", "end_s", "text", "link", "uri", "video_id")


def _record(span: Span) -> dict[str, Any]:
    video = span.video
    values = (video.path, span.start_s, span.end_s, span.text, span.link, video.uri, video.video_id)
    return dict(zip(_COLUMNS, values, strict=True)) | dict(span.facts)


def cell(value: Any) -> Any:
    """A value as a CSV holds it: no formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
