"""Which videos jobs.retry takes, what --where may be, and with which configuration they are tried."""

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.config import IndexConfig
from pipeline.errors import UsageError
from pipeline.index.commits import commit
from pipeline.index.runs import last_config, record_run
from pipeline.index.snapshot import Index
from pipeline.index.tables import RUNS, VIDEOS
from pipeline.ledger.plan import plan_run
from pipeline.ledger.retry import to_retry
from pipeline.types import STATUSES
from tests.jobs.conftest import job
from tests.pipeline.archive_rows import ENCODER, video_rows
from tests.pipeline.ledger.test_plan import RECIPE, ledger, listing

ENDED = {0: ("indexed", None), 1: ("failed", "DecodeTimeout"), 2: ("quarantined", "ReadFailed"), 3: ("partial", None)}
CONFIG = IndexConfig(("/archive",), "x", "builtin", questions=("Why?",), limit=3)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    made = Index.create(str(tmp_path / "index"), ENCODER)
    rows = [
        video_rows(number).to_pylist()[0] | {"status": status, "error_class": error_class, "n_clips": 0}
        for number, (status, error_class) in ENDED.items()
    ]
    commit(made, videos=pa.Table.from_pylist(rows, schema=VIDEOS.schema()))
    return made


def log_run(index: Index, run_id: str, command: str, config: str) -> None:
    at = datetime.now(UTC)
    row = dict.fromkeys(RUNS.schema().names) | {"run_id": run_id, "command": command, "config": config}
    row |= {"started_at": at, "finished_at": at, "listed": 0, "ignored": 0, "outcome": "ok", "exit_code": 0}
    row |= {"counts": dict.fromkeys(STATUSES, 0), "stages": [], "versions": []}
    record_run(index, row)


@pytest.mark.parametrize(
    ("where", "names"),
    [
        (None, ["001.mp4", "002.mp4", "003.mp4"]),
        ("error_class = 'DecodeTimeout'", ["001.mp4"]),
        ("status = 'partial' or error_class like 'Read%'", ["002.mp4", "003.mp4"]),
        ("status = 'indexed'", []),
    ],
)
def test_only_what_ended_badly_is_chosen(index: Index, where: str | None, names: list[str]) -> None:
    assert sorted(to_retry(index, where)["name"].to_pylist()) == names


@pytest.mark.parametrize(
    "where",
    [
        "error_clas = 'x'",
        "1",
        "true); DROP TABLE rows; --",
        "(SELECT count(*) FROM read_csv('/etc/passwd')) > 0",
        "read_text('/etc/passwd') is not null",
        "",
    ],
)
def test_a_hostile_condition_is_one_line(index: Index, where: str) -> None:
    ended = job("retry", "--index", index.url, "--where", where)
    assert (ended.code, ended.out) == (2, "")
    assert len(ended.err.strip().splitlines()) == 1


def test_nothing_to_retry_says_so_and_a_dry_run_tries_nothing(index: Index) -> None:
    before = sorted(os.walk(index.url))
    ended = job("retry", "--index", index.url, "--where", "error_class = 'TooLarge'")
    assert ended.code == 0
    assert "nothing to retry" in ended.out
    ended = job("retry", "--index", index.url, "--dry-run")
    assert ended.code == 0
    assert "3 videos to try again: 1 DecodeTimeout, 1 ReadFailed, 1 partly decoded" in ended.out
    assert sorted(os.walk(index.url)) == before


def test_the_last_runs_configuration_is_taken(index: Index) -> None:
    with pytest.raises(UsageError, match="no finished run"):
        last_config(index)
    log_run(index, "1", "index", replace(CONFIG, p=2.0).as_json())
    log_run(index, "2", "index", CONFIG.as_json())
    log_run(index, "3", "purge", "{}")
    assert last_config(index) == CONFIG
    log_run(index, "4", "index", '{"roots": [], "renamed": 1}')
    with pytest.raises(UsageError, match="is not a configuration"):
        last_config(index)


@pytest.mark.parametrize("status", ["failed", "quarantined", "partial"])
def test_a_retried_video_starts_over_with_no_attempt_counted(status: str) -> None:
    known = ledger(dict(video_id="a", status=status, error_class="DecodeTimeout", attempts=3), dict(video_id="b"))
    plan = plan_run(listing(("a", "1"), ("b", "1")), known, RECIPE, None, lambda root, uri: False, {"a"})
    assert [(t.row, t.mode, t.reason, t.attempts) for t in plan.todo] == [(0, "index", "retry", 0)]
    assert plan.unchanged == 1
    assert not plan.quarantine
