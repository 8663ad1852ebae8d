"""jobs.retry from end to end: videos of one error class are replayed, and nothing beside them is touched."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import jobs.index
import jobs.retry
from pipeline.decoding.decoder import Decoder
from pipeline.execution.in_process import InProcess
from pipeline.execution.stages import DecodeStage, Stages, WorkerSetup
from tests.archive import render_video
from tests.jobs.conftest import ROOT, index_job, job
from tests.jobs.tables import records, rows
from tests.pipeline.decoding.test_decode_hostile import faulty
from tests.pipeline.in_process import CountingExecutor

FLAGS = ("--model", "builtin", "--max-new-tokens", "2", "--decode-deadline", "2")
CLASS = "error_class = 'DecodeTimeout'"


@pytest.fixture
def signals_kept() -> Iterator[None]:
    """A job in this process takes the signals; they are given back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def archive_with_a_hang(folder: Path) -> Path:
    """A video on which the faulty child hangs, one that never was a video, and one that is well."""
    render_video(folder / "poison.mp4", 5, 1)
    render_video(folder / "well.mp4", 5, 2)
    (folder / "text.mp4").write_text("no video\n" * 100)
    return folder


def replay(archive: Path, index: Path, retry: Callable[..., str]) -> None:
    """The first run has happened; `retry(*args)` runs jobs.retry and returns what it printed."""
    before = by_name(index)
    assert {name: (v["status"], v["error_class"]) for name, v in before.items()} == {
        "poison.mp4": ("failed", "DecodeTimeout"),
        "text.mp4": ("failed", "NotAVideo"),
        "well.mp4": ("indexed", None),
    }
    render_video(archive / "new.mp4", 5, 3)
    render_video(archive / "well.mp4", 5, 4)
    assert "1 videos to try again: 1 DecodeTimeout" in retry("--where", CLASS, "--dry-run")
    assert by_name(index) == before
    retry("--where", CLASS)
    after = by_name(index)
    assert (after["poison.mp4"]["status"], after["poison.mp4"]["attempts"]) == ("indexed", 0)
    assert {name: after[name] for name in ("text.mp4", "well.mp4")} == {
        name: before[name] for name in ("text.mp4", "well.mp4")
    }, "neither another class nor a changed file beside it is taken up"
    assert "new.mp4" not in after
    last = max(rows(index, "runs").to_pylist(), key=lambda run: run["started_at"])
    assert (last["command"], last["listed"], last["counts"]["indexed"]) == ("retry", 1, 2)
    assert len([e for e in rows(index, "errors").to_pylist() if e["error_class"] == "DecodeTimeout"]) == 1
    audit = job("verify", "--index", str(index))
    assert audit.code == 0, audit.err
    assert "nothing to retry" in retry("--where", CLASS)
    (archive / "text.mp4").unlink()
    assert "none of them is in the archive now" in retry()


def by_name(index: Path) -> dict[str, dict[str, Any]]:
    return {video["name"]: video for video in records(index, "videos").values()}


def test_a_class_of_failures_is_replayed_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], signals_kept: None
) -> None:
    """The jobs in this process, without Ray; the child really hangs, and really is killed."""
    archive, index = archive_with_a_hang(tmp_path / "archive"), tmp_path / "index"

    class Hanging(DecodeStage):
        def __init__(self, setup: WorkerSetup) -> None:
            super().__init__(setup)
            self._decoder = Decoder(setup.bounds, faulty("hang"))

    hanging = InProcess(Stages(decode=Hanging))
    assert jobs.index.main([str(archive), "--output", str(index), *FLAGS], hanging) == 0

    def retry(*args: str) -> str:
        capsys.readouterr()
        counts = CountingExecutor()
        assert jobs.retry.main(["--index", str(index), *args], counts) == 0
        assert {Path(path).name for path in counts.opened} <= {"poison.mp4"}
        return capsys.readouterr().out

    replay(archive, index, retry)


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_class_of_failures_is_replayed_by_the_real_job(tmp_path: Path) -> None:
    archive, index = archive_with_a_hang(tmp_path / "archive"), tmp_path / "index"
    command = [sys.executable, "-m", "tests.jobs.dying_job", "decode child hangs", str(tmp_path / "mark"), str(archive)]
    command += ["--output", str(index), "--num-cpus", "2", *FLAGS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr

    def retry(*args: str) -> str:
        ended = job("retry", "--index", str(index), *args, *(() if "--dry-run" in args else ("--num-cpus", "2")))
        assert ended.code == 0, ended.err
        return ended.out

    replay(archive, index, retry)
    assert index_job([archive], index, *FLAGS).code == 0
    assert {name: v["status"] for name, v in by_name(index).items()} == {
        "poison.mp4": "indexed", "well.mp4": "indexed", "new.mp4": "indexed", "text.mp4": "deleted"
    }  # fmt: skip
