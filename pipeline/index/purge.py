"""Purge: remove videos from every table, and look that nothing of them is left."""

import json
from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import JobError
from pipeline.index import staging
from pipeline.index.commits import COMMITTED_TABLES, commit, record_run
from pipeline.index.schemas import runs_schema
from pipeline.index.snapshot import Index
from pipeline.ledger.run_report import STATUSES, new_run_id


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
    run_id = new_run_id()
    statuses = Counter(index.read("videos", ["status"])["status"].to_pylist())
    row = {
        "run_id": run_id,
        "started_at": started_at,
        "finished_at": datetime.now(UTC),
        "command": "purge",
        "config": json.dumps({"n_videos": n_videos}),
        "listed": 0,
        "ignored": 0,
        "counts": {status: statuses[status] for status in STATUSES},
        "stages": [],
        "versions": [],
        "outcome": "ok",
        "exit_code": 0,
    }
    record_run(index, run_id, pa.Table.from_pylist([row], schema=runs_schema()))


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
