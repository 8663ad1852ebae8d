"""Frame rates as exact fractions, and which frames of a video a span of time holds.

Frame k of a video of constant rate r is on screen from k/r, counted from the first frame a full decode outputs. A span
is half-open, so it holds the frames whose own time lies in [start_s, end_s).
"""

import math
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction

STANDARD = tuple(
    Fraction(n, d)
    for n, d in [(24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1), (48, 1), (50, 1), (60000, 1001), (60, 1)]
)
"""Rates that SMPTE time code can count."""
_EARLY = 0.05  # of a frame: containers round times to a millisecond or a tick of their own
_NEAR = 4e-4  # relative: 23.976 and 24 differ by 1e-3


def rational_rate(fps: float | None, is_vfr: bool | None) -> Fraction:
    """The exact rate behind a measured mean: a standard one where it is near, else a fraction of small terms.

    A video whose frames come irregularly (or whose rate is unknown) gets the standard rate it can be conformed to.
    """
    if not fps or not math.isfinite(fps) or fps <= 0:
        return Fraction(25)
    nearest = min(STANDARD, key=lambda rate: abs(float(rate) - fps))
    if abs(float(nearest) - fps) <= _NEAR * fps:
        return nearest
    exact = Fraction(fps).limit_denominator(1001)
    return timecode_rate(exact) if is_vfr or exact == 0 else exact


def timecode_rate(rate: Fraction) -> Fraction:
    """The standard rate to count a video of another rate in: a multiple of it if there is one, else the next above."""
    if rate in STANDARD:
        return rate
    multiples = [standard for standard in STANDARD if (standard / rate).denominator == 1]
    above = [standard for standard in STANDARD if standard >= rate]
    return min(multiples or above or [STANDARD[-1]])


def common_rate(rates: Iterable[Fraction]) -> Fraction:
    """The most frequent of some rates, the lower of two as frequent; 25 when there are none."""
    counts = Counter(rates)
    return min(counts, key=lambda rate: (-counts[rate], rate)) if counts else Fraction(25)


def frames_in(start_s: float, end_s: float, rate: Fraction) -> tuple[int, int]:
    """(first frame, frame after the last) of a span at a constant rate; at least one frame."""
    first = max(0, math.ceil(start_s * rate - _EARLY))
    return first, max(first + 1, math.ceil(end_s * rate - _EARLY))


def parse_rate(text: str) -> Fraction:
    """A rate as people write it: 25, 29.97, 30000/1001. ValueError for anything else or for a rate no time code has."""
    number = Fraction(text)
    if number <= 0:
        raise ValueError(f"{text!r} is no frame rate")
    rate = rational_rate(float(number), False)
    if rate not in STANDARD:
        raise ValueError(f"{text!r} is no rate of time code; expected one of {', '.join(map(shown_rate, STANDARD))}")
    return rate


def shown_rate(rate: Fraction) -> str:
    """As people write it: 25, 23.976, 29.97."""
    return f"{float(rate):.3f}".rstrip("0").rstrip(".")
