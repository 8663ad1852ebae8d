"""Progress: a line a minute in a log, a bar on a terminal, the same as JSON for programs."""

import json
import os
import pty
import sys
import termios
from typing import Any

import pytest

from pipeline.ledger import progress as module
from pipeline.ledger.progress import Progress, say_as_json, say_plainly


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Seconds that pass when the test says so."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_line_a_minute_with_what_is_done_who_is_busy_and_how_long_it_takes(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(10, say_plainly) as progress:
        progress.staffed({"decode": 3, "describe": 1})
        for _ in range(5):
            clock[0] += 15
            progress.worked({"decode": 9.0, "describe": 15.0})
            progress.add(1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == ("4/10 videos, 8 clips, 0 failed, 60 s elapsed, about 90 s left; busy: decode 20%, describe 100%")


def test_the_same_as_json(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(2, say_as_json) as progress:
        progress.worked({"decode": 30.0})
        clock[0] += 60
        progress.add(1, 3, failed=1)
    said = json.loads(capsys.readouterr().err)
    assert said.pop("at").endswith("+00:00")
    assert said.pop("text").startswith("1/2 videos, 3 clips, 1 failed")
    assert said == {
        "event": "progress",
        "videos": 1,
        "total": 2,
        "clips": 3,
        "failed": 1,
        "elapsed_s": 60.0,
        "left_s": 60.0,
        "busy": {"decode": 0.5},
    }


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Progress(4, say_plainly) as progress:
            progress.staffed({"decode": 1})
            progress.worked({"decode": 0.001})
            progress.add(3, 7)
        shown = os.read(ours, 4096).decode()
    os.close(ours)
    assert "3/4" in shown
    assert "7 clips, 0 failed, decode" in shown
