"""The log of runs: a file for each, published at once and outside commits; and how the index was configured last."""

import json
import secrets
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import IndexConfig
from pipeline.errors import UsageError
from pipeline.index.names import reading, record_of, typed
from pipeline.index.snapshot import Index, storage_trouble
from pipeline.index.table_files import parquet
from pipeline.index.tables import RUNS
from pipeline.types import STATUSES, Bounds


def new_run_id() -> str:
    """Sortable by start time, unique by chance."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


def record_run(index: Index, row: Mapping[str, Any]) -> None:
    """Append a run to the log. `row` has at least run_id, started_at, command and config; the rest has defaults."""
    defaults = {"finished_at": datetime.now(UTC), "listed": 0, "ignored": 0, "counts": {}, "stages": [], "versions": []}
    full = {**defaults, "outcome": "ok", "exit_code": 0, **row}
    data = parquet("runs", pa.Table.from_pylist([full], schema=RUNS.schema()))
    with storage_trouble(index):
        index.storage.write_atomic(f"runs/{full['run_id']}.parquet", data)


def videos_by_status(index: Index) -> dict[str, int]:
    found = Counter(index.read("videos", ["status"])["status"].to_pylist())
    return {status: found[status] for status in STATUSES}


def last_config(index: Index) -> IndexConfig:
    """The configuration of the last finished run of jobs.index. UsageError when there was none."""
    with reading("a configuration that this version can read", f"{index.url}: its last run's"):
        found = record_of(_configs(index)[-1].encode())
        values: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in found.items()}
        return typed(IndexConfig(**{**values, "bounds": typed(Bounds(**found["bounds"]))}))


def recorded_roots(index: Index) -> tuple[str, ...]:
    """What the runs of jobs.index were given as their archive, word for word."""
    with reading("the configuration of a run", f"{index.url}/runs"):
        return tuple(sorted({str(root) for text in _configs(index) for root in json.loads(text)["roots"]}))


def _configs(index: Index) -> list[str]:
    """The configurations of runs of jobs.index as JSON, the last one at the end."""
    runs = index.read("runs", ["command", "started_at", "config"], pc.field("command") == "index")
    if not runs.num_rows:
        raise UsageError(f"{index.url} records no finished run of jobs.index to take the configuration from; run that")
    configs: list[str] = runs.sort_by("started_at")["config"].to_pylist()
    return configs
