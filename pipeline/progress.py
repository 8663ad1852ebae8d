"""Progress people can see: a live bar on a terminal, one plain line a minute anywhere else."""

import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

LINE_EVERY_S = 60.0


class Progress:
    """Counts finished videos and clips; `with Progress(total_videos) as progress: progress.add(videos, clips)`."""

    def __init__(self, total_videos: int) -> None:
        self._total, self._videos, self._clips, self._failed = total_videos, 0, 0, 0
        self._started = self._last_line = time.monotonic()
        live = sys.stderr.isatty()
        self._bar = tqdm(total=total_videos, unit="video", dynamic_ncols=True) if live else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()

    def add(self, videos: int, clips: int, failed: int = 0) -> None:
        self._videos += videos
        self._clips += clips
        self._failed += failed
        if self._bar is not None:
            self._bar.update(videos)
            self._bar.set_postfix_str(f"{self._clips} clips, {self._failed} failed")
        elif time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = time.monotonic()
            print(self._line(), file=sys.stderr, flush=True)

    def _line(self) -> str:
        elapsed = time.monotonic() - self._started
        left = elapsed / self._videos * (self._total - self._videos) if self._videos else float("nan")
        return (
            f"{self._videos}/{self._total} videos, {self._clips} clips, {self._failed} failed, "
            f"{elapsed:.0f} s elapsed, about {left:.0f} s left"
        )
