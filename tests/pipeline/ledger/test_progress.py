"""Progress: a line a minute in a log, a bar on a terminal, the same as JSON for programs."""

import json
import os
import pty
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from pipeline.execution.pools import StageLoad
from pipeline.ledger import progress as module
from pipeline.ledger.progress import Progress, say_as_json, say_plainly
from pipeline.storage.places import open_storage


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Seconds that pass when the test says so."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


LOADS = {"decode": StageLoad(3, 1, 0, 20), "describe": StageLoad(2, 2, 6, 12)}


def test_a_line_a_minute_with_what_is_done_what_waits_and_what_limits(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(10, say_plainly) as progress:
        for n in range(1, 6):
            clock[0] += 15
            progress.finished(is_failed=n == 2)
            progress.look(LOADS, clips=2 * n)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "4/10 videos, 8 clips, 1 failed, 60 s elapsed, about 90 s left; decode 1/3 busy, 0 waiting; "
        "describe 2/2 busy, 6 waiting (limits)"
    )


def test_before_anything_is_done_it_says_what_it_waits_for(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(10, say_plainly) as progress:
        clock[0] += 60
        progress.look({"decode": StageLoad(1, 1, 0, 3), "describe": StageLoad(0, 0, 2, 0)}, 0)
    assert "waiting for the first describe worker" in capsys.readouterr().err


def test_the_same_as_json_and_beside_the_index(
    clock: list[float], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    storage = open_storage(str(tmp_path))
    with Progress(2, say_as_json, storage) as progress:
        clock[0] += 60
        progress.finished(is_failed=True)
        progress.look(LOADS, 3)
        left = json.loads(storage.read_bytes(module.PROGRESS))
    said = json.loads(capsys.readouterr().err)
    assert said.pop("at").endswith("+00:00")
    assert said.pop("text").startswith("1/2 videos, 3 clips, 1 failed")
    expected = {
        "videos": 1,
        "total": 2,
        "clips": 3,
        "failed": 1,
        "elapsed_s": 60.0,
        "left_s": 60.0,
        "first_clip_s": 60.0,
        "stages": {
            "decode": {"workers": 3, "busy": 1, "waiting": 0, "done": 20, "per_s": 0.33},
            "describe": {"workers": 2, "busy": 2, "waiting": 6, "done": 12, "per_s": 0.2},
        },
        "limits": "describe",
    }
    assert said == {"event": "progress", **expected}
    assert left.pop("at") > 0
    assert left == expected
    assert not storage.exists(module.PROGRESS), "it is gone with the run"


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 140))
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Progress(4, say_plainly) as progress:
            progress.say("pools: decode 1 x 1 CPU")
            for _ in range(3):
                progress.finished(is_failed=False)
            progress.look(LOADS, 7)
        shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "starting workers" in shown
    assert "pools: decode 1 x 1 CPU\r\n" in shown, "a line of its own, whole, above the bar"
    assert "3/4 videos" in shown
    assert "7 clips, decode 1/3 busy, 0 waiting, describe 2/2 busy, 6 waiting (limits)" in shown
