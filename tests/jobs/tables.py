"""Tables of an index as analysts read them, by plain glob, and when two indexes say the same (DESIGN section 6)."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

KEYS = {
    "videos": ["video_id"],
    "clips": ["clip_id"],
    "segments": ["segment_id"],
    "frames": ["clip_id", "frame_index"],
    "captions": ["clip_id", "prompt_id"],
    "answers": ["video_id", "question_id", "scope", "clip_id"],
}
NOT_COMPARED = {"run_id", "indexed_at", "prefill_ms", "decode_ms", "attempts", "reason", "content_run_id"}


def rows(index: Path, table: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted((index / table).glob("*.parquet"))])


def records(index: Path, table: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    found = {tuple(r[k] for k in KEYS[table]): r for r in rows(index, table).to_pylist()}
    assert len(found) == rows(index, table).num_rows, f"{table}: a key stands twice"
    return found


def assert_same_index(a: Path, b: Path) -> None:
    """Equal keys, counts, times, statuses and texts; vectors within 1e-3. Logs and times of day are not compared."""
    for table in KEYS:
        left, right = records(a, table), records(b, table)
        assert left.keys() == right.keys(), table
        for key, row in left.items():
            for column, value in row.items():
                other = right[key][column]
                if column in NOT_COMPARED:
                    continue
                if column in ("embedding", "evidence", "relevance", "boundary_score"):
                    np.testing.assert_allclose(
                        numbers_of(value), numbers_of(other), atol=1e-3, err_msg=f"{table}.{column}"
                    )
                else:
                    assert value == other, f"{table} {key} {column}: {value!r} != {other!r}"


def numbers_of(value: Any) -> list[float]:
    if value is None:
        return []
    if isinstance(value, list):
        return [n for part in value for n in numbers_of(part)]
    if isinstance(value, dict):
        return [n for part in value.values() if not isinstance(part, str) for n in numbers_of(part)]
    return [float(value)]
