"""Thresholds found without labels fall where planted labels say."""

import numpy as np
import pytest

from pipeline.describing.calibration import calibrate, relevance_threshold, segment_threshold


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


def test_tau_s_also_parts_a_small_change_from_noise() -> None:
    """What AdaTP must not take for the same picture: frames of one scene of which a corner changed."""
    rng = np.random.default_rng(2)
    still, after = unit(rng.standard_normal(64)), unit(rng.standard_normal(64))
    changed = unit(0.95 * still + 0.3 * after)  # a cosine of 0.95 with `still`; across a cut it is near 0
    video = np.concatenate([np.tile(still, (12, 1)), np.tile(changed, (12, 1)), np.tile(after, (12, 1))])
    frames = unit(video + 0.05 * rng.standard_normal(video.shape) / 8)
    found = calibrate([frames], unit(rng.standard_normal((20, 64))))
    cosines = (frames[1:] * frames[:-1]).sum(1)
    assert np.flatnonzero(cosines < found.tau_s).tolist() == [11, 23]


def test_tau_t_is_the_misfits_quantile_whatever_fits() -> None:
    rng = np.random.default_rng(1)
    misfits = rng.normal(0.05, 0.03, 20_000)
    fits = rng.normal(0.4, 0.05, 1_000)
    with_fits = relevance_threshold(np.concatenate([misfits, fits]))
    assert with_fits == pytest.approx(np.quantile(misfits, 0.95), abs=0.01)
    assert (fits > with_fits).mean() > 0.99


def test_an_archive_that_stands_still_is_not_cut_by_rounding() -> None:
    assert segment_threshold(np.ones(100)) < 1 - 1e-6


def test_too_little_to_tell_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 20"):
        segment_threshold(np.ones(3))
    with pytest.raises(ValueError, match="videos and texts"):
        calibrate([], np.ones((1, 4), np.float32))
