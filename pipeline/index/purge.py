"""Purge: remove videos from every table, and look that nothing of them is left."""

import json
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import JobError
from pipeline.index import staging
from pipeline.index.commits import commit
from pipeline.index.names import reading
from pipeline.index.runs import new_run_id, record_run, videos_by_status
from pipeline.index.snapshot import Index
from pipeline.index.tables import COMMITTED_TABLES


def purge(index: Index, video_ids: Collection[str]) -> dict[str, int]:
    """Remove every row of these videos, staged work included; returns the rows removed per table.

    One commit. Afterwards every file under the index is read again; JobError if a row of them is still there. The
    caller holds the lock and has rolled forward. A video that is still in the archive comes back with the next run.
    """
    ids = pa.array(sorted(video_ids), pa.string())
    before = _count(index, ids)
    staging.discard(index.storage, _staged_of(index, ids))
    pairs = [(video_id, None) for video_id in ids.to_pylist()]
    commit(index, drops={table: pairs for table in COMMITTED_TABLES})
    left = {table: n for table, n in _count(index, ids).items() if n}
    if left or _staged_of(index, ids):
        raise JobError(f"purged videos still have rows in {index.url}: {left or 'staged items'}")
    return before


def record_purge(index: Index, started_at: datetime, n_videos: int) -> None:
    """The purge's row in `runs`. It tells how many, not which: what is purged is to be forgotten."""
    config = json.dumps({"n_videos": n_videos})
    row = {"run_id": new_run_id(), "started_at": started_at, "command": "purge", "config": config}
    record_run(index, {**row, "counts": videos_by_status(index)})


def _count(index: Index, ids: pa.Array) -> dict[str, int]:
    """Rows of `ids` in every Parquet file that lies in the index, whatever the snapshot says."""
    counts = dict.fromkeys(COMMITTED_TABLES, 0)
    for table in COMMITTED_TABLES:
        for name in (name for name in index.storage.list(table) if name.endswith(".parquet")):
            with reading("a file of this table", f"{index.url}/{table}/{name}"):
                found = index.read_file(f"{table}/{name}", ["video_id"])["video_id"]
                counts[table] += pc.sum(pc.is_in(found, ids)).as_py() or 0
    return counts


def _staged_of(index: Index, ids: pa.Array) -> list[str]:
    """Staged items that hold a row of `ids`."""

    def holds(key: str) -> bool:
        rows = staging.read_item(index.storage, staging.staged_path(key))
        with reading("a staged item", f"{index.url}/{staging.staged_path(key)}"):
            found = (rows[table]["video_id"] for table in COMMITTED_TABLES if table in rows)
            return any(pc.any(pc.is_in(column, ids)).as_py() for column in found)

    keys = sorted(staging.staged_keys(index.storage))
    with ThreadPoolExecutor(max_workers=8) as pool:
        return [key for key, held in zip(keys, pool.map(holds, keys), strict=True) if held]
