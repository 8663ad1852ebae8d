"""What is exported: spans of videos with a text, from any table that has times."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.archive.labels import link_to, path_in_root
from pipeline.errors import UsageError
from pipeline.exporting.rates import rational_rate
from pipeline.index.snapshot import Index, Snapshot
from pipeline.index.tables import TABLES as SCHEMA_TABLES
from pipeline.index.tables import table_schema
from pipeline.index.where import Where
from pipeline.reading.search import Hit, filterable_schema, with_videos

TABLES = ("captions", "answers", "segments", "shots")
"""Tables with a start and an end that can be exported; `hits` are the fifth kind, and come from a search."""


@dataclass(frozen=True)
class SourceVideo:
    """A video as an export names it."""

    video_id: str
    uri: str
    root: str
    path: str  # below its root, for people
    name: str
    version: str
    rate: Fraction
    is_vfr: bool
    duration_s: float

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "SourceVideo":
        """From a row of `videos`."""
        return cls(
            row["video_id"],
            row["uri"],
            row["root"],
            path_in_root(row["uri"], row["root"]),
            row["name"],
            row["version"],
            rational_rate(row["fps"], row["is_vfr"]),
            bool(row["is_vfr"]),
            row["duration_s"] or 0.0,
        )


VIDEO_COLUMNS = ("video_id", "uri", "root", "name", "version", "fps", "is_vfr", "duration_s", "status")


@dataclass(frozen=True)
class Span:
    """A piece of a video, [start_s, end_s), with what is said of it. `facts` are further columns for tables."""

    video: SourceVideo
    start_s: float
    end_s: float
    text: str
    facts: Mapping[str, Any]

    @property
    def link(self) -> str:
        return link_to(self.video.uri, self.start_s)

    def padded(self, seconds: float) -> "Span":
        """Longer by `seconds` on each side, inside the video."""
        end_s = self.end_s + seconds
        return replace(
            self,
            start_s=max(0.0, self.start_s - seconds),
            end_s=min(end_s, max(self.end_s, self.video.duration_s)) if self.video.duration_s else end_s,
        )


def spans_of(index: Index, table: str, where: str | None = None, include_deleted: bool = False) -> list[Span]:
    """Rows of `table` as spans, by path of the video and time. UsageError for a bad `where` or another table."""
    if table not in TABLES or table not in SCHEMA_TABLES:
        raise UsageError(f"{table!r} cannot be exported; expected one of {', '.join(TABLES)}")
    condition = None if where is None else Where(where, filterable_schema(table))
    return index.at_one_snapshot(lambda snapshot: _spans(index, snapshot, table, condition, include_deleted))


def spans_of_hits(index: Index, hits: Sequence[Hit], text: str) -> list[Span]:
    """What a search found, best first, each with the text that was looked for."""
    videos = index.at_one_snapshot(lambda snapshot: videos_of(index, snapshot, include_deleted=True))
    facts = ("rank", "score", "z", "weak", "n_similar", "segment_id")
    return [
        Span(videos[h.video_id], h.start_s, h.end_s, text, {name: getattr(h, name) for name in facts}) for h in hits
    ]


def videos_of(index: Index, snapshot: Snapshot, include_deleted: bool) -> dict[str, SourceVideo]:
    """Videos by id: those that are there, or all that the index has rows of."""
    kept = None if include_deleted else pc.field("status") != "deleted"
    rows = index.read_at(snapshot, "videos", list(VIDEO_COLUMNS), kept).to_pylist()
    return {row["video_id"]: SourceVideo.of(row) for row in rows}


def _spans(index: Index, snapshot: Snapshot, table: str, condition: Where | None, include_deleted: bool) -> list[Span]:
    videos = videos_of(index, snapshot, include_deleted)
    flat = [f.name for f in table_schema(table, 1) if not pa.types.is_nested(f.type) and f.name != "thumbnail"]
    rows = index.read_at(snapshot, table, flat)
    rows = rows.filter(pc.is_in(rows["video_id"], pa.array(list(videos), pa.string())))
    if condition is not None:
        schema = filterable_schema(table)
        joined = with_videos(rows, index.read_at(snapshot, "videos"), condition.columns)
        columns = {f.name: pa.nulls(len(rows), f.type) for f in schema} | dict(
            zip(joined.column_names, joined.columns, strict=True)
        )
        rows = rows.filter(pa.array(condition.keep(pa.table(columns))))
    spans = [_span(table, row, videos[row["video_id"]]) for row in rows.to_pylist()]
    return sorted(spans, key=lambda span: (span.video.path, span.video.video_id, span.start_s, span.end_s))


def _span(table: str, row: Mapping[str, Any], video: SourceVideo) -> Span:
    facts = {name: value for name, value in row.items() if name not in _ELSEWHERE}
    return Span(video, row["start_s"], row["end_s"], _text(table, row), facts)


_ELSEWHERE = frozenset(["video_id", "uri", "start_s", "end_s", "video_version"])


def _text(table: str, row: Mapping[str, Any]) -> str:
    if table == "captions":
        return str(row["caption"])
    if table == "answers":
        return f"{row['question']} {row['answer'] if not row['abstained'] else '(abstained)'}"
    if table == "shots":
        return f"shot {row['shot_index'] + 1}"
    return f"segment {row['segment_index'] + 1} of clip {int(row['clip_id'].rpartition('-')[2]) + 1}"


def by_video(spans: Sequence[Span]) -> dict[str, list[Span]]:
    """Spans of each video, in time order; videos in the order of their first span."""
    found: dict[str, list[Span]] = {}
    for span in spans:
        found.setdefault(span.video.video_id, []).append(span)
    return {video_id: sorted(mine, key=lambda s: (s.start_s, s.end_s)) for video_id, mine in found.items()}
