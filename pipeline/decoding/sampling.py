"""Which frames of a video are wanted: policies as pure functions of times. Knows no decoder and no file.

Every comparison is between float64 values that are each the correctly rounded value of an exact rational
(k * interval here, pts * time_base in the decoder). Rounding is monotone, so "on screen at k * interval" never moves to
a neighbouring frame, and a stored time finds its own frame again.
"""

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from pipeline.config import FRAMES_PER_CLIP
from pipeline.errors import UsageError
from pipeline.types import ClipPlan, Probe


@dataclass(frozen=True)
class Every:
    """The frame on screen at each k * interval_s; each frame once."""

    interval_s: Fraction

    def __str__(self) -> str:
        return f"every={float(self.interval_s):g}s"


@dataclass(frozen=True)
class Uniform:
    """`n` frames at int(linspace(0, N - 1, n)) of N decodable frames, duplicates kept; one clip per video.

    With `or_each_second`, a video that has at most `n` frames at one per second gives those: LLaVA-Video's rule.
    """

    n: int
    or_each_second: bool = False

    def __str__(self) -> str:
        return f"uniform={self.n}{',1fps' if self.or_each_second else ''}"

    def indices(self, n_frames: int, fps: float) -> tuple[int, ...]:
        """Which of `n_frames` frames are wanted of a video with `fps` frames per second."""
        each_second = range(0, n_frames, max(1, round(fps)))
        if self.or_each_second and len(each_second) <= self.n:
            return tuple(each_second)
        return uniform_indices(n_frames, self.n)


Sampling = Every | Uniform


def parse_sampling(text: str, most: int = FRAMES_PER_CLIP) -> Sampling:
    """The policy a flag names: "every=1s", "every=0.5s", "uniform=32", "uniform=20,1fps".

    `most`: frames that a uniform sample may have. Raises UsageError naming what was expected.
    """
    if match := re.fullmatch(r"every=(\d+(?:\.\d+)?|\.\d+)s", text, re.ASCII):
        interval = Fraction(match[1])
        if interval > 0:
            return Every(interval)
    elif (match := re.fullmatch(r"uniform=(\d{1,6})(,1fps)?", text, re.ASCII)) and 1 <= int(match[1]) <= most:
        return Uniform(int(match[1]), or_each_second=match[2] is not None)
    raise UsageError(
        f"sampling {text!r}: expected every=SECONDSs with SECONDS > 0 (every=1s, every=0.5s) "
        f"or uniform=N with 1 <= N <= {most} (uniform=32)"
    )


def count_targets(duration_s: float, interval_s: Fraction) -> int:
    """How many k * interval_s lie before duration_s: k = 0, 1, ... Nothing is materialised."""
    count = max(0, math.floor(Fraction(duration_s) / interval_s) - 1)
    while float(count * interval_s) < duration_s:
        count += 1
    return count


def uniform_indices(n_frames: int, n: int) -> tuple[int, ...]:
    """int(linspace(0, n_frames - 1, n)) in exact integer arithmetic."""
    if n_frames < 1:
        raise ValueError(f"expected at least one frame, got {n_frames}")
    return tuple(i * (n_frames - 1) // max(n - 1, 1) for i in range(n))


def plan_clips(probe: Probe, sampling: Sampling, frames_per_clip: int = FRAMES_PER_CLIP) -> tuple[ClipPlan, ...]:
    """The clips of a video. Clip k of `every` covers [k, k + 1) * frames_per_clip * interval, cut at the duration.

    A clip in whose window no new frame appears is planned here and found empty by the decoder, which returns no
    ClipFrames for it.
    """
    if isinstance(sampling, Uniform):
        return (ClipPlan(0, 0.0, probe.duration_s, probe.target_times_s, unique=False),)
    interval, n_targets = sampling.interval_s, count_targets(probe.duration_s, sampling.interval_s)
    clips = []
    for first in range(0, n_targets, frames_per_clip):
        last = min(first + frames_per_clip, n_targets)
        clips.append(
            ClipPlan(
                clip_index=first // frames_per_clip,
                start_s=float(first * interval),
                end_s=min(float((first + frames_per_clip) * interval), probe.duration_s),
                targets_s=tuple(float(k * interval) for k in range(first, last)),
                before_s=float((first - 1) * interval) if first else None,
            )
        )
    return tuple(clips)
