"""Thresholds found without labels fall where planted labels say."""

import numpy as np
import pytest

from pipeline.calibration import calibrate, relevance_threshold, segment_threshold


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def planted(rng: np.random.Generator, n_scenes: int, noise: float) -> tuple[np.ndarray, list[int]]:
    centres = unit(rng.standard_normal((n_scenes, 64)))
    lengths = rng.integers(3, 8, n_scenes)
    frames = np.repeat(centres, lengths, 0) + noise * rng.standard_normal((lengths.sum(), 64)) / 8
    return unit(frames), np.cumsum(lengths)[:-1].tolist()


def test_tau_s_parts_planted_cuts_from_noise() -> None:
    rng = np.random.default_rng(0)
    videos, cuts = zip(*(planted(rng, 6, 0.2) for _ in range(10)), strict=True)
    found = calibrate(list(videos), unit(rng.standard_normal((20, 64))))
    for video, true_cuts in zip(videos, cuts, strict=True):
        cosines = (video[1:] * video[:-1]).sum(1)
        assert [i + 1 for i, cosine in enumerate(cosines) if cosine < found.tau_s] == true_cuts


def test_tau_t_is_the_misfits_quantile_whatever_fits() -> None:
    rng = np.random.default_rng(1)
    misfits = rng.normal(0.05, 0.03, 20_000)
    fits = rng.normal(0.4, 0.05, 1_000)
    with_fits = relevance_threshold(np.concatenate([misfits, fits]))
    assert with_fits == pytest.approx(np.quantile(misfits, 0.95), abs=0.01)
    assert (fits > with_fits).mean() > 0.99


def test_too_little_to_tell_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 20"):
        segment_threshold(np.ones(3))
    with pytest.raises(ValueError, match="videos and texts"):
        calibrate([], np.ones((1, 4), np.float32))
