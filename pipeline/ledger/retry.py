"""What jobs.retry works on: the videos that ended badly, alone, by the configuration of the last run of jobs.index."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import IndexConfig
from pipeline.errors import UsageError
from pipeline.index.schemas import videos_schema
from pipeline.index.snapshot import Index
from pipeline.index.where import Where
from pipeline.ledger.prepare import Prepared, prepare
from pipeline.types import Bounds


def to_retry(index: Index, where: str | None) -> pa.Table:
    """Rows of `videos` that failed, were quarantined or are partial, and for which `where` is true."""
    condition = None if where is None else Where(where, videos_schema())
    videos = index.read("videos", filter=pc.field("status").isin(["failed", "quarantined", "partial"]))
    return videos if condition is None else videos.filter(pa.array(condition.keep(videos)))


def prepare_retry(index: Index, chosen: pa.Table, thresholds_file: Path | None) -> Prepared:
    """The roots of `chosen` (from `to_retry`) listed as they are now, and of what is found only the chosen videos.

    Nothing else of those roots is seen: no new file is indexed beside, and no absence counts.
    """
    roots = tuple(sorted(chosen["root"].unique().to_pylist()))
    config = replace(last_config(index), output=index.url, redo=None, limit=None, budget_s=None, include=(), exclude=())
    prepared = prepare(replace(config, roots=roots), thresholds_file)
    table = prepared.listing.table
    mine = table.filter(pc.is_in(table["video_id"], chosen["video_id"].combine_chunks()))
    return replace(prepared, listing=replace(prepared.listing, table=mine, roots=(), ignored=0))


def last_config(index: Index) -> IndexConfig:
    """The configuration of the last finished run of jobs.index. UsageError when there was none."""
    runs = index.read("runs", ["command", "started_at", "config"], pc.field("command") == "index")
    if not runs.num_rows:
        raise UsageError(f"{index.url} has no finished run of jobs.index to take the configuration from; run that")
    text = runs.sort_by([("started_at", "descending")])["config"][0].as_py()
    try:
        fields = json.loads(text)
        lists = {name: tuple(fields[name]) for name in ("roots", "questions", "include", "exclude")}
        return IndexConfig(**{**fields, **lists, "bounds": Bounds(**fields["bounds"])})
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"the last run's configuration cannot be read by this version: {error}") from error
