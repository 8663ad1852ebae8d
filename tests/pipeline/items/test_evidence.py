"""Relevance and the frames a question is shown: against slow literal versions, and as properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.items.evidence import choose_shown, segment_means, segment_relevance, select_frames
from pipeline.types import Target

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@given(LENGTHS, st.integers(0, 2**32 - 1))
def test_segment_means_are_means_of_runs(lengths: list[int], seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(sum(lengths), 5)).astype(np.float32)
    slow, at = [], 0
    for length in lengths:
        slow.append(vectors[at : at + length].mean(axis=0))
        at += length
    np.testing.assert_allclose(segment_means(vectors, lengths), slow, rtol=1e-5, atol=1e-6)


def test_segment_means_refuse_lengths_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="sum to 4, but there are 3 frames"):
        segment_means(np.zeros((3, 2), np.float32), [2, 2])


@given(LENGTHS, st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_selected_frames(lengths: list[int], budget: int, seed: int) -> None:
    relevance = np.random.default_rng(seed).permutation(len(lengths)).astype(float).tolist()
    kept = select_frames(lengths, relevance, budget)
    flat = [frame for frames in kept for frame in frames]
    assert len(flat) == min(budget, sum(lengths))
    assert flat == sorted(set(flat)), "in time order, each frame once"
    starts = np.cumsum([0, *lengths])
    assert all(starts[s] <= f < starts[s + 1] for s, frames in enumerate(kept) for f in frames)
    full = [s for s in range(len(lengths)) if len(kept[s]) == lengths[s]]
    touched = [s for s in range(len(lengths)) if kept[s]]
    untouched = [s for s in range(len(lengths)) if not kept[s]]
    assert len(touched) - len(full) <= 1, "at most one segment gives some of its frames"
    assert all(relevance[a] > relevance[b] for a in touched for b in untouched)


def test_relevance_is_the_mean_cosine_of_a_segments_frames() -> None:
    rng = np.random.default_rng(3)
    frames = rng.normal(size=(7, 4)).astype(np.float32)
    frames /= np.linalg.norm(frames, axis=1, keepdims=True)
    question = frames[2]
    got = segment_relevance(segment_means(frames, [3, 4]), question)
    assert got == pytest.approx([(frames[:3] @ question).mean(), (frames[3:] @ question).mean()], abs=1e-6)


def test_evidence_names_what_was_shown_most_relevant_first() -> None:
    segments = [("a", 0.0, 3.0), ("b", 3.0, 5.0), ("c", 5.0, 9.0)]
    shown = choose_shown(Target("answer:x:video"), [3, 2, 30], [0.2, 0.9, 0.1], segments)
    assert [e["segment_id"] for e in shown.evidence] == ["b", "a", "c"]
    assert shown.lengths == (3, 2, 27)
    assert len(shown.places) == 32
    assert shown.relevance == (0.2, 0.9, 0.1)
