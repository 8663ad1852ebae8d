"""The outline of every kind of thing, as a coverage mask with soft edges."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pipeline.planted.vocabulary import DIGITS, SHAPES

Mask = npt.NDArray[np.float32]  # (side, side), 0 outside to 1 inside

_OVERSAMPLE = 4

# 5 x 7 dot-matrix digits, rows from the top, one bit a dot.
_DIGIT_ROWS = {
    "zero": (14, 17, 19, 21, 25, 17, 14),
    "one": (4, 12, 4, 4, 4, 4, 14),
    "two": (14, 17, 1, 2, 4, 8, 31),
    "three": (31, 2, 4, 2, 1, 17, 14),
    "four": (2, 6, 10, 18, 31, 2, 2),
    "five": (31, 16, 30, 1, 1, 17, 14),
    "six": (6, 8, 16, 30, 17, 17, 14),
    "seven": (31, 1, 2, 4, 8, 8, 8),
    "eight": (14, 17, 17, 14, 17, 17, 14),
    "nine": (14, 17, 17, 15, 1, 2, 12),
}


def _star(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """A five-pointed star, one point up: inside when the radius is under the edge of its pentagram."""
    angle = (np.arctan2(x, -y) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5
    outer, inner = 1.0, 0.42
    tip = np.array([outer, 0.0])
    notch = inner * np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)])
    edge = notch - tip
    radius = np.hypot(x, y)
    px, py = radius * np.cos(angle) - tip[0], np.abs(radius * np.sin(angle)) - tip[1]
    return np.asarray(edge[0] * py - edge[1] * px >= 0)


def _inside(kind: str, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Whether points lie in `kind`, drawn in the square [-1, 1] x [-1, 1], y pointing down."""
    radius = np.hypot(x, y)
    ax, ay = np.abs(x), np.abs(y)
    if kind == "circle":
        return radius <= 1.0
    if kind == "square":
        return np.maximum(ax, ay) <= 0.9
    if kind == "triangle":
        return (y <= 0.9) & (ax <= (y + 1.0) / 1.9)
    if kind == "diamond":
        return ax + ay <= 1.0
    if kind == "cross":
        return (np.minimum(ax, ay) <= 0.3) & (np.maximum(ax, ay) <= 1.0)
    if kind == "ring":
        return (radius <= 1.0) & (radius >= 0.58)
    if kind == "star":
        return _star(x, y)
    if kind == "bar":
        return (ax <= 1.0) & (ay <= 0.34)
    rows = np.array([[(bits >> (4 - column)) & 1 for column in range(5)] for bits in _DIGIT_ROWS[kind]], dtype=bool)
    column = np.floor((x + 0.72) / 1.44 * 5).astype(int)
    row = np.floor((y + 1.0) / 2.0 * 7).astype(int)
    within = (column >= 0) & (column < 5) & (row >= 0) & (row < 7)
    inside: npt.NDArray[np.bool_] = within & rows[np.clip(row, 0, 6), np.clip(column, 0, 4)]
    return inside


@lru_cache(maxsize=65536)
def sprite(kind: str, extent_px: float, dx_px: float, dy_px: float) -> Mask:
    """Coverage of `kind`, `extent_px` across, its centre (dx, dy) off the middle of the returned square.

    The square is just large enough for the thing and its offset: side = 2 * ceil(extent / 2 + |offset| + 1).
    """
    if kind not in SHAPES and kind not in DIGITS:
        raise ValueError(f"no such kind of thing: {kind!r}; there are {', '.join(SHAPES + DIGITS)}")
    half = int(np.ceil(extent_px / 2 + max(abs(dx_px), abs(dy_px)) + 1))
    steps = (np.arange(2 * half * _OVERSAMPLE) + 0.5) / _OVERSAMPLE - half
    x = (steps[None, :] - dx_px) / (extent_px / 2)
    y = (steps[:, None] - dy_px) / (extent_px / 2)
    fine = _inside(kind, *np.broadcast_arrays(x, y)).astype(np.float32)
    mask: Mask = fine.reshape(2 * half, _OVERSAMPLE, 2 * half, _OVERSAMPLE).mean((1, 3))
    mask.setflags(write=False)
    return mask
