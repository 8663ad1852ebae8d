"""Progress people can see: a live bar on a terminal, one line a minute anywhere else. And how a run speaks at all."""

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol, Self

from tqdm import tqdm

LINE_EVERY_S = 60.0


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
    """Counts finished videos and clips, and how busy the workers of each stage are.

    `with Progress(total_videos, say) as progress: progress.add(videos, clips)`. On a terminal, lines become a bar.
    """

    def __init__(self, total_videos: int, say: Say) -> None:
        self._total, self._videos, self._clips, self._failed = total_videos, 0, 0, 0
        self._started = self._last_line = time.monotonic()
        self._seconds: Counter[str] = Counter()
        self._workers: Mapping[str, int] = {}
        self._say = say
        live = sys.stderr.isatty() and say is say_plainly
        self._bar = tqdm(total=total_videos, unit="video", dynamic_ncols=True) if live else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()

    def staffed(self, workers: Mapping[str, int]) -> None:
        """How many workers each stage has, from now on."""
        self._workers = workers

    def worked(self, seconds: Mapping[str, float]) -> None:
        """What stages took for one item, in seconds of one worker."""
        self._seconds.update(seconds)

    def add(self, videos: int, clips: int, failed: int = 0) -> None:
        self._videos += videos
        self._clips += clips
        self._failed += failed
        if self._bar is not None:
            self._bar.update(videos)
            self._bar.set_postfix_str(", ".join([f"{self._clips} clips, {self._failed} failed", *self._busy_words()]))
        elif time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = time.monotonic()
            self._line()

    def busy(self) -> dict[str, float]:
        """Share of their time that the workers of each stage have worked since the start, 0 to 1."""
        elapsed_s = max(time.monotonic() - self._started, 1e-9)
        return {stage: s / (elapsed_s * self._workers.get(stage, 1)) for stage, s in self._seconds.items() if s > 0}

    def _busy_words(self) -> list[str]:
        return [f"{stage} {share:.0%}" for stage, share in self.busy().items()]

    def _line(self) -> None:
        elapsed_s = time.monotonic() - self._started
        left_s = elapsed_s / self._videos * (self._total - self._videos) if self._videos else None
        busy = "; busy: " + ", ".join(self._busy_words()) if self._seconds else ""
        self._say(
            f"{self._videos}/{self._total} videos, {self._clips} clips, {self._failed} failed, "
            f"{elapsed_s:.0f} s elapsed{'' if left_s is None else f', about {left_s:.0f} s left'}{busy}",
            event="progress",
            videos=self._videos,
            total=self._total,
            clips=self._clips,
            failed=self._failed,
            elapsed_s=round(elapsed_s, 1),
            left_s=None if left_s is None else round(left_s, 1),
            busy={stage: round(share, 3) for stage, share in self.busy().items()},
        )
