"""Sampling against literal versions, and what it promises whatever the numbers."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.decoding.sampling import Every, Uniform, count_targets, parse_sampling, plan_clips, uniform_indices
from pipeline.errors import UsageError
from pipeline.types import Probe

INTERVALS = st.fractions(Fraction(1, 50), 90, max_denominator=1001)


def probe(duration_s: float, targets: tuple[float, ...] = ()) -> Probe:
    return Probe("mp4", "h264", 64, 48, 0, 25.0, False, duration_s, None, targets)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("every=1s", Every(Fraction(1))),
        ("every=0.5s", Every(Fraction(1, 2))),
        ("every=.25s", Every(Fraction(1, 4))),
        ("every=0.1s", Every(Fraction(1, 10))),
        ("uniform=32", Uniform(32)),
        ("uniform=1", Uniform(1)),
    ],
)
def test_parse(text: str, expected: object) -> None:
    assert parse_sampling(text) == expected
    assert parse_sampling(str(parse_sampling(text))) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "every",
        "every=1",
        "every=0s",
        "every=-1s",
        "every=1e3s",
        "every=nans",
        "every=1s ",
        "uniform=0",
        "uniform=33",
    ]
    + ["uniform=-1", "uniform=3.5", "fps=1", "Every=1s", "every=١s"],
)
def test_a_bad_text_is_refused_naming_what_was_expected(text: str) -> None:
    with pytest.raises(UsageError, match="expected every=SECONDSs"):
        parse_sampling(text)


@given(interval=INTERVALS)
def test_text_and_back(interval: Fraction) -> None:
    text = str(Every(Fraction(round(interval * 1000), 1000) or Fraction(1)))
    assert str(parse_sampling(text)) == text


@settings(deadline=None)
@given(duration_s=st.floats(1e-6, 200), interval=INTERVALS)
@example(duration_s=0.1 + 0.2, interval=Fraction(1, 10))
@example(duration_s=3.0, interval=Fraction(1))
def test_count_is_the_literal_count(duration_s: float, interval: Fraction) -> None:
    k = 0
    while float(k * interval) < duration_s:
        k += 1
    assert count_targets(duration_s, interval) == k


@settings(deadline=None)
@given(duration_s=st.floats(1e-6, 200), interval=INTERVALS, per_clip=st.integers(1, 40))
def test_clips_share_out_the_targets(duration_s: float, interval: Fraction, per_clip: int) -> None:
    clips = plan_clips(probe(duration_s), Every(interval), per_clip)
    targets = [t for clip in clips for t in clip.targets_s]
    assert targets == [float(k * interval) for k in range(count_targets(duration_s, interval))]
    assert [clip.clip_index for clip in clips] == list(range(len(clips)))
    assert clips[0].start_s == 0.0
    assert clips[-1].end_s == duration_s
    assert all(a.end_s == b.start_s for a, b in pairwise(clips))
    assert all(clip.start_s <= t < clip.end_s for clip in clips for t in clip.targets_s)
    assert [clip.before_s for clip in clips] == [None] + [clip.targets_s[-1] for clip in clips[:-1]]


@given(n_frames=st.integers(1, 10**6), n=st.integers(1, 32))
def test_uniform_is_linspace(n_frames: int, n: int) -> None:
    exact = [int(Fraction(i * (n_frames - 1), max(n - 1, 1))) for i in range(n)]
    assert list(uniform_indices(n_frames, n)) == exact
    floats = np.linspace(0, n_frames - 1, n)
    assert np.abs(floats - uniform_indices(n_frames, n)).max() < 1 + 1e-6


def test_uniform_is_one_clip_with_duplicates() -> None:
    times = (0.0, 0.0, 0.5, 0.5)
    (clip,) = plan_clips(probe(1.0, times), Uniform(4))
    assert (clip.targets_s, clip.unique, clip.before_s, clip.end_s) == (times, False, None, 1.0)
