"""What jobs.retry works on: the videos that ended badly, alone, by the configuration of the last run of jobs.index."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.archive.recorded import refuse_strangers
from pipeline.index.runs import last_config, recorded_roots
from pipeline.index.snapshot import Index
from pipeline.index.tables import VIDEOS
from pipeline.index.where import Where
from pipeline.ledger.prepare import Prepared, prepare


def to_retry(index: Index, where: str | None) -> pa.Table:
    """Rows of `videos` that failed, were quarantined or are partial, and for which `where` is true."""
    condition = None if where is None else Where(where, VIDEOS.schema())
    videos = index.read("videos", filter=pc.field("status").isin(["failed", "quarantined", "partial"]))
    return videos if condition is None else videos.filter(pa.array(condition.keep(videos)))


def prepare_retry(index: Index, chosen: pa.Table, thresholds_file: Path | None) -> Prepared:
    """The roots of `chosen` (from `to_retry`) listed as they are now, and of what is found only the chosen videos.

    Nothing else of those roots is seen: no new file is indexed beside, and no absence counts.
    """
    named = zip(chosen["uri"].to_pylist(), chosen["root"].to_pylist(), strict=True)
    refuse_strangers(index.url, named, recorded_roots(index))
    roots = tuple(sorted(chosen["root"].unique().to_pylist()))
    config = replace(last_config(index), output=index.url, redo=None, limit=None, budget_s=None, include=(), exclude=())
    prepared = prepare(replace(config, roots=roots), thresholds_file)
    table = prepared.listing.table
    mine = table.filter(pc.is_in(table["video_id"], chosen["video_id"].combine_chunks()))
    return replace(prepared, listing=replace(prepared.listing, table=mine, roots=(), ignored=0))
