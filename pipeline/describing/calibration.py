"""Thresholds of a dual encoder from nothing but its own embeddings: no labels, any encoder.

tau_s says which neighbouring frames show the same, so that AdaTP may keep one token a position of them (local
debiasing): a pair whose angle stands out from what neighbours usually differ by begins a segment. Usual is the median,
standing out is six robust standard deviations above it. tau_t parts texts that fit a frame from those that do not: of
texts paired with frames at random most do not fit, and the few that do only lengthen the upper tail. So the lower half,
mirrored at the median, is the distribution of misfits, and tau_t is its 95% quantile.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]  # (n, D), rows of unit length

MISFIT_QUANTILE = 0.95
OUTLIER_SIGMAS = 6.0
FINEST = 0.999
"""Unit vectors nearer than this may differ by rounding alone, as where the pictures of an archive stand still."""
_SIGMAS_A_DEVIATION = 1.4826  # standard deviations in a median absolute deviation, of normal values


PHRASES = tuple(
    f"{who} {what}"
    for who in ("a person", "a dog", "a car", "two children", "a bird", "a crowd", "a red circle", "a blue square")
    for what in (
        "running outside",
        "in a kitchen",
        "on a stage at night",
        "talking to the camera",
        "near water",
        "on a plain background",
    )
)
"""Phrases on many subjects: of any one frame most of them are wrong, which is what tau_t is measured from."""


class TooFewFrames(ValueError):
    """Nothing can be told from so little footage."""


@dataclass(frozen=True)
class Calibration:
    tau_s: float
    tau_t: float
    n_pairs: int  # adjacent frames looked at
    n_text_pairs: int  # (text, frame) pairs looked at


def segment_threshold(adjacent_cosines: npt.NDArray[np.float64]) -> float:
    """tau_s from cosines of frames that follow each other, (n,), over many videos. Raises TooFewFrames under 20."""
    if adjacent_cosines.size < 20:
        raise TooFewFrames(
            f"expected at least 20 neighbouring frames to tell a change from noise, got {adjacent_cosines.size}"
        )
    angles = np.arccos(np.clip(adjacent_cosines, -1.0, 1.0))  # they spread what cosines squeeze against 1
    usual = np.median(angles)
    spread = _SIGMAS_A_DEVIATION * np.median(np.abs(angles - usual))
    return min(FINEST, float(np.cos(min(usual + OUTLIER_SIGMAS * spread, np.pi))))


def relevance_threshold(cosines: npt.NDArray[np.float64]) -> float:
    """tau_t from cosines of texts and frames paired at random, (n,). Raises TooFewFrames under 20."""
    if cosines.size < 20:
        raise TooFewFrames(f"expected at least 20 pairs of text and frame, got {cosines.size}")
    low, middle = np.quantile(cosines, [1 - MISFIT_QUANTILE, 0.5])
    return float(2 * middle - low)


def calibrate(videos: list[Vectors], texts: Vectors) -> Calibration:
    """Thresholds from unit frame embeddings, one array (n_i, D) per video in order of time, and unit texts (q, D).

    The texts should be of the kind the index will be asked (questions, phrases), on many subjects, so that any one
    frame fits fewer than half of them.
    """
    if not videos or texts.ndim != 2 or not len(texts):
        raise TooFewFrames(f"expected videos and texts, got {len(videos)} videos and texts of shape {texts.shape}")
    adjacent = np.concatenate([(v[1:] * v[:-1]).sum(1, dtype=np.float64) for v in videos])
    cosines = np.concatenate([(v @ texts.T).ravel() for v in videos]).astype(np.float64)
    return Calibration(segment_threshold(adjacent), relevance_threshold(cosines), int(adjacent.size), int(cosines.size))
