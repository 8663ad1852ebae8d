"""Every method's selection against its slow transcription, and the arithmetic of budgets and debiasing."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

import adatp
from adatp.debias import debiased_ratios, first_at_each_position, quotas, top_of_each_segment
from adatp.dycoke import dycoke_keep
from adatp.echoprune import echoprune_keep
from adatp.evs import evs_keep
from adatp.fastv import fastv_keep
from adatp.method import Selection
from adatp.pyramiddrop import pyramiddrop_keep
from adatp.schedule import budgets, default_end, mean_share
from adatp.scores import attention_received
from adatp.segments import segment_of_frame
from adatp.vcast import vcast_counts, vcast_keep
from adatp.vidcom2 import vidcom2_keep
from adatp.visionzip import visionzip
from tests.adatp import transcriptions as slow

lengths = st.lists(st.integers(1, 6), min_size=1, max_size=6)


def random_tensor(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=150, deadline=None)
@given(
    tokens=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=60),
    quota=st.lists(st.integers(0, 12), min_size=4, max_size=4),
    local=st.booleans(),
)
def test_algorithm_1_equals_its_transcription(
    tokens: list[tuple[int, int, int]], quota: list[int], local: bool
) -> None:
    """Scores from a handful of values, so that ties abound."""
    segment, position, score = (list(column) for column in zip(*tokens, strict=True))
    segments, positions = torch.tensor(segment), torch.tensor(position)
    walk, chosen = top_of_each_segment(torch.tensor(score).float(), segments, torch.tensor(quota))
    if local:
        chosen = first_at_each_position(walk, chosen, segments, positions, len(quota), 5)
    assert walk[chosen].sort().values.tolist() == slow.algorithm_1(score, segment, position, quota, local)


def test_scoring_and_selection_wait_for_no_device() -> None:
    """Fake tensors have no values: whatever had to read one would raise. Only counting what is left has to."""
    with FakeTensorMode():
        score, segment, position = torch.rand(40), torch.zeros(40, dtype=torch.long), torch.zeros(40, dtype=torch.long)
        quota = torch.full((3,), 4)
        walk, chosen = top_of_each_segment(score, segment, quota)
        assert first_at_each_position(walk, chosen, segment, position, 3, 9).shape == (40,)
        assert attention_received(torch.rand(5, 4, 8), torch.rand(60, 2, 8), torch.arange(3, 43), 0.3).shape == (40,)
        assert fastv_keep(score, 7).shape == (7,)
        with pytest.raises(DynamicOutputShapeException):
            Selection(segment[:5], quota, 8, local_debias=True)(torch.arange(40), score)


@settings(max_examples=100, deadline=None)
@given(lengths=lengths, c=st.integers(1, 7), p=st.floats(0.1, 2.4), seed=st.integers(0, 999), gamma=st.floats(0.1, 1))
def test_budgets_sum_exactly_and_dedup_caps(lengths: list[int], c: int, p: float, seed: int, gamma: float) -> None:
    n = sum(lengths)
    relevance = random_tensor(len(lengths), seed=seed)
    significant = [bool(x > 0) for x in relevance]
    n_significant = sum(length for length, is_in in zip(lengths, significant, strict=True) if is_in)
    budget = budgets(n * c, 8, p, 2, 4)[2]
    r1, r2 = debiased_ratios(n, n_significant, budget / (n * c), 2.2, gamma)
    assert 0 <= r2 <= 1
    assert 0 <= r1 <= 1
    assert n_significant in (0, n) or r1 >= r2 - 1e-12, "a significant segment never gets less than the others"
    quota = quotas(lengths, [r1 if is_in else r2 for is_in in significant], c)
    assert sum(quota) == budget
    assert all(0 <= k <= length * c for k, length in zip(quota, lengths, strict=True))
    select = Selection(segment_of_frame(lengths), torch.tensor(quota), c, local_debias=True)
    kept = select(torch.arange(n * c), random_tensor(n * c, seed=seed))
    assert len(kept) <= min(budget, len(lengths) * c)
    no_dedup = Selection(segment_of_frame(lengths), torch.tensor(quota), c, local_debias=False)
    assert len(no_dedup(torch.arange(n * c), random_tensor(n * c, seed=seed))) == budget


def test_equations_4_and_5_by_hand() -> None:
    """8 of 32 frames significant, r = .4: min(2.2, .75*32/8 = 3) * .4 = .88; (12.8 - 7.04) / 24 = .24."""
    assert debiased_ratios(32, 8, 0.4, 2.2, 0.75) == pytest.approx((0.88, 0.24))
    assert debiased_ratios(32, 16, 0.4, 2.2, 0.75) == pytest.approx((0.6, 0.2))  # gamma caps: .75 * 2 * .4
    assert debiased_ratios(32, 8, 0.8, 2.2, 0.75) == pytest.approx((1.0, 0.8 * 32 / 24 - 8 / 24))  # never above 1
    assert debiased_ratios(32, 30, 0.4, 2.2, 0.75) == pytest.approx((0.4, 0.4))  # never below the others
    assert debiased_ratios(32, 0, 0.4, 2.2, 0.75) == (0.4, 0.4)
    assert debiased_ratios(32, 32, 0.4, 2.2, 0.75) == (0.4, 0.4)


def test_the_literal_formula_behind_its_flag() -> None:
    assert debiased_ratios(32, 32, 0.4, 2.2, 0.75, literal=True)[0] == pytest.approx(0.3)  # a silent loss of 25%
    assert debiased_ratios(32, 8, 0.8, 2.2, 0.75, literal=True)[0] == pytest.approx(1.76)
    r1, r2 = debiased_ratios(32, 30, 0.4, 2.2, 0.75, literal=True)
    assert r1 < r2  # the inversion METHOD 1.5 describes


def test_the_quota_of_32_single_frames_sums_to_753() -> None:
    """METHOD 1.5: rounding each segment alone would give 768."""
    assert sum(quotas([1] * 32, [753 / 6272] * 32, 196)) == 753


@pytest.mark.parametrize(
    ("n_visual", "n_layers", "p", "first", "last", "step"),
    [
        (6272, 28, 1.0, 2509, 753, 125.44),
        (6272, 28, 1.5, 3763, 1129, 188.16),
        (6272, 28, 2.0, 5018, 1505, 250.88),
        (6272, 24, 1.0, 2509, 753, 175.62),
        (3640, 28, 1.0, 1456, 437, 72.8),
        (3640, 28, 2.0, 2912, 874, 145.6),
    ],
)
def test_the_schedule_has_the_counts_of_method_1_3(
    n_visual: int, n_layers: int, p: float, first: int, last: int, step: float
) -> None:
    end = default_end(n_layers)
    counts = budgets(n_visual, n_layers, p, 2, end)
    assert counts[:3] == (n_visual, n_visual, first)
    assert counts[end:] == (last,) * (n_layers - end)
    assert counts[end - 1] > last
    assert all(abs(a - b - step) <= 1 for a, b in pairwise(counts[2 : end + 1]))
    assert list(counts) == [slow.schedule_count(n_visual, p, layer, 2, end) for layer in range(n_layers)]


def test_the_default_end_of_short_decoders_is_half() -> None:
    assert [default_end(n) for n in (8, 12, 15, 16, 24, 28)] == [4, 6, 7, 4, 12, 16]


@pytest.mark.parametrize("seed", range(5))
def test_fastv_and_pyramiddrop_equal_their_transcriptions(seed: int) -> None:
    scores = random_tensor(57, seed=seed).mul(4).round()  # ties
    for n_keep in (0, 1, 20, 57):
        assert fastv_keep(scores, n_keep).tolist() == slow.fastv(scores.tolist(), n_keep)
    for ratio in (0.0, 0.13, 0.5, 1.0):
        assert pyramiddrop_keep(scores, 57, ratio).tolist() == slow.pyramiddrop(scores.tolist(), 57, ratio)


@pytest.mark.parametrize("official_sum", [True, False])
@pytest.mark.parametrize("n_keep", [1, 5, 13, 36])
def test_visionzip_equals_its_transcription(n_keep: int, official_sum: bool) -> None:
    features, received, keys = (random_tensor(3, 36, w, seed=w) for w in (11, 1, 7))
    got, index = visionzip(features, received[..., 0], keys, n_keep, official_sum)
    for frame in range(3):
        expected, places = slow.visionzip_frame(
            features[frame], received[frame, :, 0], keys[frame], n_keep, official_sum
        )
        assert index[frame].tolist() == places
        torch.testing.assert_close(got[frame], expected)


@pytest.mark.parametrize("n", [6, 8, 10, 12, 16])
@pytest.mark.parametrize("k", [0, 1, 5, 9])
def test_dycoke_equals_its_transcription(n: int, k: int) -> None:
    frames = random_tensor(n, 9, 6, seed=n + k)
    assert dycoke_keep(frames, k).tolist() == slow.dycoke(frames, k)


def test_dycoke_keeps_the_count_that_matches_the_paper() -> None:
    """METHOD 2.3: 32 frames of 196 at K = .7 leave 7 * 370 + 508 = 3098 tokens."""
    assert len(dycoke_keep(random_tensor(32, 196, 4, seed=0), int((1 - 0.7) * 196))) == 3098


def test_dycoke_without_its_quirks() -> None:
    frames = random_tensor(11, 9, 6, seed=3)
    kept = dycoke_keep(frames, 2, official=False)
    per_frame = torch.bincount(kept // 9, minlength=11).tolist()
    assert per_frame == [9, 2, 2, 2, 9, 2, 2, 2, 9, 2, 2]
    assert (kept.diff() > 0).all()
    assert torch.bincount(dycoke_keep(frames, 2) // 9, minlength=11).tolist() == [9, 2, 2, 2, 9, 2, 2, 2, 9, 2, 0]
    assert dycoke_keep(frames[:1], 2).tolist() == list(range(9))


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.25, 0.6, 1.0])
def test_vidcom2_equals_its_transcription(ratio: float) -> None:
    tokens = random_tensor(5, 9, 14, seed=1) + 2 * random_tensor(5, 1, 14, seed=2)
    assert [index.tolist() for index in vidcom2_keep(tokens, ratio)] == slow.vidcom2(tokens, ratio)


def near_copies(n: int, seed: int) -> Tensor:
    """Frames of 9 tokens of which some repeat the frame before exactly, so that scores tie."""
    frames = random_tensor(n, 9, 6, seed=seed) + random_tensor(1, 9, 6, seed=seed + 1)
    frames[1::3] = frames[0::3][: len(frames[1::3])]
    return frames


@pytest.mark.parametrize("n_keep", [0, 1, 9, 10, 17, 40, 63])
@pytest.mark.parametrize("seed", range(3))
def test_evs_echoprune_and_vcast_equal_their_transcriptions(n_keep: int, seed: int) -> None:
    """In float64, so that equal scores are equal however they are summed."""
    frames, words = near_copies(7, seed).double(), random_tensor(4, 6, seed=seed + 9).double()
    assert evs_keep(frames, n_keep).tolist() == slow.evs(frames, n_keep)
    assert echoprune_keep(frames, words, n_keep).tolist() == slow.echoprune(frames, words, n_keep)
    assert echoprune_keep(frames, None, n_keep).tolist() == slow.echoprune(frames, None, n_keep)
    assert vcast_keep(frames, n_keep).tolist() == slow.vcast(frames, n_keep)


def test_pruners_before_the_decoder_on_one_frame_and_on_two() -> None:
    """EVS keeps the first frame whole; V-CAST one token a frame at the least; EchoPrune exactly what it is given."""
    for n in (1, 2):
        frames = random_tensor(n, 9, 6, seed=n)
        assert evs_keep(frames, 4).tolist() == list(range(9))
        assert len(vcast_keep(frames, 1)) == n
        assert len(echoprune_keep(frames, None, 4)) == 4
    assert len(echoprune_keep(random_tensor(5, 9, 6, seed=0), None, 0)) == 0


def test_vcast_hands_out_the_whole_budget() -> None:
    assert vcast_counts([0.25] * 4, n_keep=12, c=9) == [3, 3, 3, 3]
    assert vcast_counts([0.7, 0.1, 0.1, 0.1], n_keep=24, c=9) == [9, 5, 5, 5], "what a full frame cannot take goes on"
    assert vcast_counts([0.5, 0.3, 0.2], n_keep=6, c=9) == [2, 2, 2], "2.5, 1.9 and 1.6: the largest fractions first"
    assert vcast_counts([0.5, 0.5], n_keep=1, c=9) == [1, 1]
    assert vcast_counts([0.5, 0.5], n_keep=99, c=9) == [9, 9]


def test_segments_are_cut_where_neighbours_differ() -> None:
    angles = torch.tensor([0.0, 0.1, 0.2, 1.2, 1.3, 1.9])
    features = torch.stack([angles.cos(), angles.sin()], 1)
    assert adatp.segment_lengths(features, tau_s=0.9) == (3, 2, 1)
    assert adatp.segment_lengths(features[:1], tau_s=0.9) == (1,)
    assert adatp.segment_lengths(features, tau_s=-1.0) == (6,)
    assert adatp.segment_relevance((3, 2, 1), torch.arange(6.0)) == (1.0, 3.5, 5.0)
    with pytest.raises(ValueError, match=r"\(n, D\), got shape \(6,\)"):
        adatp.segment_lengths(angles)
    with pytest.raises(ValueError, match="5 frames but 6 similarities"):
        adatp.segment_relevance((3, 2), torch.arange(6.0))


def test_representative_frames_stand_in_the_middle() -> None:
    assert adatp.representative_frames((1, 2, 5)) == (0, 2, 5)
    assert adatp.representative_frames((1, 2, 5), per_segment=2) == (0, 1, 2, 4, 6)
    assert adatp.representative_frames((4,), per_segment=9) == (0, 1, 2, 3)


@pytest.mark.parametrize("p", [0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize(
    "name",
    ["fastv", "visionzip", "pyramiddrop", "vidcom2", "evs", "echoprune", "vcast", "random", "uniform", "framedrop"],
)
def test_other_methods_solve_their_ratio_for_the_schedules_flops(
    onevision: adatp.VideoLLM, pixels: Tensor, name: str, p: float
) -> None:
    """By the mean over layers of visual tokens, which is what the paper's FLOPs are linear in; within rounding."""
    visual = onevision.encode(pixels, visionzip=True)
    result = adatp.Engine(onevision).run([adatp.Request("x", visual, "red", method=name, p=p, max_new_tokens=1)])["x"]
    mine = sum(result.visual_tokens_per_layer) / 8
    wanted = mean_share(144, 8, p) * 144
    assert abs(mine - wanted) <= 16 * 9 / 16, f"{name} keeps {mine} tokens a layer, the schedule {wanted}"
    asked = adatp.Request("x", visual, "red", method=name, share=0.4, max_new_tokens=1)
    given = adatp.Engine(onevision).run([asked])["x"]
    assert abs(sum(given.visual_tokens_per_layer) / 8 - 0.4 * 144) <= 16 * 9 / 16, f"{name} at a share of 0.4"
