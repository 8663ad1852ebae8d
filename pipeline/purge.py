"""Purge: remove videos from every table, and look that nothing of them is left."""

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import staging
from pipeline.commits import COMMITTED_TABLES, commit
from pipeline.errors import JobError
from pipeline.index import Index

VideoIds = Collection[str]


def purge(index: Index, video_ids: VideoIds) -> dict[str, int]:
    """Remove every row of these videos, staged work included; returns the rows removed per table.

    One commit. Afterwards every file under the index is read again; JobError if a row of them is still there. The
    caller holds the lock and has rolled forward. A video that is still in the archive comes back with the next run.
    """
    ids = pa.array(sorted(video_ids), pa.string())
    before = _count(index, ids)
    for key in _staged_of(index, ids):
        index.storage.delete(staging.staged_path(key))
    pairs = [(video_id, None) for video_id in ids.to_pylist()]
    commit(index, drops={table: pairs for table in COMMITTED_TABLES})
    left = {table: n for table, n in _count(index, ids).items() if n}
    if left or _staged_of(index, ids):
        raise JobError(f"purged videos still have rows in {index.url}: {left or 'staged items'}")
    return before


def _count(index: Index, ids: pa.Array) -> dict[str, int]:
    """Rows of `ids` in every Parquet file that lies in the index, whatever the snapshot says."""
    counts = {}
    for table in COMMITTED_TABLES:
        paths = [f"{table}/{name}" for name in index.storage.list(table) if name.endswith(".parquet")]
        found = (pc.sum(pc.is_in(index.read_file(path, ["video_id"])["video_id"], ids)).as_py() for path in paths)
        counts[table] = sum(n or 0 for n in found)
    return counts


def _staged_of(index: Index, ids: pa.Array) -> list[str]:
    """Staged items that hold a row of `ids`."""

    def holds(key: str) -> bool:
        rows = staging.decode_item(index.storage.read_bytes(staging.staged_path(key)))
        return any(pc.any(pc.is_in(table["video_id"], ids)).as_py() for table in rows.values())

    keys = sorted(staging.staged_keys(index.storage))
    with ThreadPoolExecutor(max_workers=8) as pool:
        return [key for key, held in zip(keys, pool.map(holds, keys), strict=True) if held]
