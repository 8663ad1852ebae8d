"""Progress people can see: a live bar on a terminal, one line a minute anywhere else. And how a run speaks at all."""

import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol, Self

from tqdm import tqdm

from pipeline.execution.pools import StageLoad
from pipeline.storage.base import Storage

LINE_EVERY_S = 60.0
LEAVE_EVERY_S = 5.0
PROGRESS = "_state/progress.json"
"""What a live run is at, for jobs.status --watch; gone with the run, or left behind by a crash, which means nothing."""

_BAR = "{percentage:3.0f}%|{bar:16}| {n_fmt}/{total_fmt} videos [{elapsed}, {remaining} left] {postfix}"


class Say(Protocol):
    """One line of a run's log: words for people, and the facts in them for whoever reads logs by program."""

    def __call__(self, text: str, /, **facts: object) -> None: ...


def say_plainly(text: str, /, **facts: object) -> None:
    """The words, on stderr."""
    print(text, file=sys.stderr, flush=True)


def say_as_json(text: str, /, **facts: object) -> None:
    """One JSON object a line, on stderr: at (UTC), event (`note` unless the facts say), text, and the facts."""
    line = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": "note", "text": text, **facts}
    print(json.dumps(line, default=str), file=sys.stderr, flush=True)


class Progress:
    """Counts finished videos and clips, and what each pool of workers is at.

    `with Progress(total_videos, say, storage) as progress`. On a terminal it is one live line, else a line a minute. It
    also leaves its numbers beside the index for `jobs.status --watch`.
    """

    def __init__(self, total_videos: int, say: Say, storage: Storage | None = None) -> None:
        self._total, self._videos, self._clips, self._failed = total_videos, 0, 0, 0
        self._started = self._last_line = time.monotonic()
        self._left = -math.inf  # when the numbers were last left beside the index
        self._loads: Mapping[str, StageLoad] = {}
        self._first_clip_s: float | None = None
        self._say, self._storage = say, storage
        live = sys.stderr.isatty() and say is say_plainly
        self._bar = tqdm(total=total_videos, unit="video", dynamic_ncols=True, bar_format=_BAR) if live else None
        self._doing = "starting workers"

    def __enter__(self) -> Self:
        self._show()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._storage is not None:
            self._storage.delete(PROGRESS)

    def say(self, text: str, /, **facts: object) -> None:
        """A line of the run's log, above the live one where there is one."""
        if self._bar is None:
            self._say(text, **facts)
        else:
            self._bar.write(text, file=sys.stderr)

    def finished(self, is_failed: bool) -> None:
        """One video of which nothing more is to come."""
        self._videos += 1
        self._failed += is_failed

    def look(self, loads: Mapping[str, StageLoad], clips: int) -> None:
        """What the pools are at now, and how many clips have rows. Called often."""
        self._loads, self._clips, now = loads, clips, time.monotonic()
        if self._first_clip_s is None and clips:
            self._first_clip_s = now - self._started
        missing = [pool for pool, load in loads.items() if not load.workers]
        self._doing = f"waiting for the first {' and '.join(missing)} worker" if missing else ""
        self._show()
        if self._bar is None and now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            self._say(self._words(), event="progress", **self.facts())
        if self._storage is not None and now - self._left >= LEAVE_EVERY_S:
            self._left = now
            self._storage.write_atomic(PROGRESS, json.dumps({"at": time.time(), **self.facts()}).encode())

    @property
    def limiting(self) -> str | None:
        """The pool that has most to do for each of its workers; None while nothing waits anywhere."""
        loads = {pool: (load.busy + load.waiting) / load.workers for pool, load in self._loads.items() if load.workers}
        most = max(loads, key=lambda pool: loads[pool], default=None)
        return most if most is not None and loads[most] > 0 else None

    def facts(self) -> dict[str, object]:
        elapsed_s = time.monotonic() - self._started
        return {
            "videos": self._videos,
            "total": self._total,
            "clips": self._clips,
            "failed": self._failed,
            "elapsed_s": round(elapsed_s, 1),
            "left_s": None if not self._videos else round(elapsed_s / self._videos * (self._total - self._videos), 1),
            "first_clip_s": None if self._first_clip_s is None else round(self._first_clip_s, 1),
            "stages": {
                pool: {**asdict(load), "per_s": round(load.done / max(elapsed_s, 1e-9), 2)}
                for pool, load in self._loads.items()
            },
            "limits": self.limiting,
        }

    def _show(self) -> None:
        if self._bar is None:
            return
        self._bar.n = self._videos
        self._bar.set_postfix_str(self._doing or ", ".join([f"{self._clips} clips", *self._failures(), *self._pools()]))

    def _failures(self) -> list[str]:
        return [f"{self._failed} failed"] if self._failed else []

    def _pools(self) -> list[str]:
        marks = {self.limiting: " (limits)"}
        return [
            f"{pool} {load.busy}/{load.workers} busy, {load.waiting} waiting{marks.get(pool, '')}"
            for pool, load in self._loads.items()
        ]

    def _words(self) -> str:
        facts = self.facts()
        left = "" if facts["left_s"] is None else f", about {facts['left_s']:.0f} s left"
        pools = "; " + "; ".join([self._doing] if self._doing else self._pools()) if self._loads else ""
        return (
            f"{self._videos}/{self._total} videos, {self._clips} clips, {self._failed} failed, "
            f"{facts['elapsed_s']:.0f} s elapsed{left}{pools}"
        )
