"""A night's budget: newest videos first; what is unfinished stays pending and staged, and the next night goes on."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config import IndexConfig
from pipeline.errors import UsageError
from pipeline.execution.pools import Pools
from pipeline.ledger.run_report import Stopwatch, refuse_gpu_budget
from tests.jobs.conftest import QUESTION, index_job, job
from tests.jobs.tables import assert_same_index, rows

FLAGS = ("--question", QUESTION, "--max-new-tokens", "8")  # as the index of the fixture was made
CONFIG = IndexConfig(("/archive",), "/index")
TWO_GPUS = Pools(decode=4, decode_cpus=1, describe=2, describe_cpus=1, describe_gpus=1)


def spent_after_s(config: IndexConfig, monkeypatch: pytest.MonkeyPatch) -> int | None:
    """Seconds of two GPUs, then of four from the 40th on, until the budget is spent; None: not within 1,000."""
    watch, now = Stopwatch(), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for second in range(1000):
        if watch.is_spent(config):
            return second - 1
        now[0] = second
        watch.look({"decode": 4, "describe": 2 if second <= 40 else 4}, gpus_each=1)
    return None


def test_when_a_budget_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert spent_after_s(CONFIG, monkeypatch) is None
    assert spent_after_s(replace(CONFIG, budget_s=100), monkeypatch) == 100
    assert spent_after_s(replace(CONFIG, budget_gpu_s=60), monkeypatch) == 30, "two GPUs spend it in half the time"
    assert spent_after_s(replace(CONFIG, budget_gpu_s=120), monkeypatch) == 50, "80 of two GPUs, 40 of four"
    assert spent_after_s(replace(CONFIG, budget_s=20, budget_gpu_s=100), monkeypatch) == 20
    with pytest.raises(UsageError, match="no GPU"):
        refuse_gpu_budget(replace(CONFIG, budget_gpu_s=100), replace(TWO_GPUS, describe_gpus=0))


def test_what_limits_a_run_is_the_busiest_pool() -> None:
    watch = Stopwatch()
    watch.worker_s |= {"decode": 40.0, "describe": 20.0}
    for stage, seconds in (("probe", 2.0), ("decode", 6.0), ("embed", 4.0), ("describe", 12.0)):
        watch.add(stage, seconds)
    assert watch.busy() == {"decode": pytest.approx(0.2), "describe": pytest.approx(0.8)}


@pytest.mark.nightly
def test_what_a_budget_leaves_the_next_night_takes_up(archive: Path, indexed: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    first = index_job([archive], index, *FLAGS, "--budget", "1s", "--json")  # it is spent when the first item comes
    assert first.code == 0, first.err
    assert "the budget is spent" in first.err
    counts = json.loads(first.out.splitlines()[-1])["videos"]
    assert counts["pending"] >= 1
    assert sum(counts.values()) == 3, "the books balance"
    assert job("verify", "--index", str(index)).code == 0

    second = index_job([archive], index, *FLAGS, "--budget", "1h")
    assert second.code == 0, second.err
    assert "left for a later run" not in second.err
    assert_same_index(index, indexed)
    run = max(rows(index, "runs").to_pylist(), key=lambda run: run["started_at"])
    items = {stage["stage"]: stage["items"] for stage in run["stages"]}
    of_clips, on_the_long_video = 4, 1  # items in all; the second run counts those the first had staged as well
    assert items["decode"] == of_clips + on_the_long_video - counts["indexed"], "what was committed is not done again"
    assert not list((index / "_state" / "staging").glob("*.parquet"))
