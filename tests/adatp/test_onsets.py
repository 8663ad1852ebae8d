"""Content onsets against their slow transcription, their properties, and their edges."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import adatp
from adatp.engine import clip_of
from adatp.onsets import Onsets, chords, onsets_keep, shown
from adatp.schedule import budgets
from tests.adatp import transcriptions as slow


def moving(n: int, c: int, d: int, seed: int, still: float) -> Tensor:
    """Frames in which a position keeps its token with chance `still` and takes a new one or a near one otherwise."""
    generator = torch.Generator().manual_seed(seed)
    fresh = torch.randn(n, c, d, generator=generator)
    near = 0.2 * torch.randn(n, c, d, generator=generator)
    draw = torch.rand(n, c, generator=generator)
    frames = [fresh[0]]
    for f in range(1, n):
        changed = torch.where(draw[f, :, None] < (1 + still) / 2, frames[-1] + near[f], fresh[f])
        frames.append(torch.where(draw[f, :, None] < still, frames[-1], changed))
    return torch.stack(frames)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 9), c=st.integers(1, 6), still=st.sampled_from([0.0, 0.5, 0.9, 1.0]), seed=st.integers(0, 999),
    budget=st.integers(0, 60), refresh=st.integers(1, 6), floor=st.sampled_from([0.0, 0.3, 2.0]),
)  # fmt: skip
def test_onsets_equal_their_transcription(
    n: int, c: int, still: float, seed: int, budget: int, refresh: int, floor: float
) -> None:
    frames = moving(n, c, 5, seed, still)
    assert onsets_keep(frames, budget, refresh, floor).tolist() == slow.onsets(frames, budget, refresh, floor)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 40), c=st.integers(1, 12), still=st.floats(0, 1), seed=st.integers(0, 999),
    share=st.floats(0.01, 1.2), refresh=st.integers(1, 8),
)  # fmt: skip
def test_the_budget_holds_and_no_position_is_unseen_for_long(
    n: int, c: int, still: float, seed: int, share: float, refresh: int
) -> None:
    budget = round(share * n * c)
    kept = onsets_keep(moving(n, c, 4, seed, still), budget, refresh)
    budget = max(budget, c)
    assert c <= len(kept) <= budget
    assert (kept.diff() > 0).all()
    mask = torch.zeros(n * c, dtype=torch.bool)
    mask[kept] = True
    assert mask[:c].all(), "the first frame is whole"
    gap = next(k for k in range(refresh, n + refresh + 1) if c * math.ceil(n / k) <= budget or budget >= n * c)
    longest = max((int(torch.cat([column.nonzero().flatten(), torch.tensor([n])]).diff().max()) for column in
                   mask.view(n, c).T), default=0)  # fmt: skip
    assert longest <= gap


def test_all_alike_shows_key_frames_and_nothing_else() -> None:
    """Equal tokens have distance 0 exactly, so a still clip never spends its budget on rounding."""
    still = torch.randn(1, 7, 896, generator=torch.Generator().manual_seed(5)).expand(32, 7, 896)
    assert float(chords(still).max()) == 0.0
    kept = onsets_keep(still, budget=200, refresh=5)
    assert kept.tolist() == [f * 7 + j for f in range(0, 32, 5) for j in range(7)]
    assert onsets_keep(still, budget=7, refresh=5).tolist() == list(range(7)), "K counts up to the whole clip"
    assert onsets_keep(still, budget=32 * 7, refresh=5).tolist() == list(range(32 * 7)), "all of it fits: all of it"


def test_all_different_spends_the_budget_and_keeps_the_largest_changes() -> None:
    frames = torch.randn(16, 9, 64, generator=torch.Generator().manual_seed(1))
    kept = onsets_keep(frames, budget=60, refresh=5)
    assert 50 <= len(kept) <= 60
    turned = frames[:1].repeat(16, 1, 1)
    turned[6:, 4] = frames[1, 4]  # one position shows another thing from frame 6 on
    assert 6 * 9 + 4 in onsets_keep(turned, budget=60, refresh=5)
    assert 6 * 9 + 4 in onsets_keep(turned, budget=9 * 2 + 1, refresh=5), "the last token of a tight budget goes to it"


def test_one_frame_and_less_than_a_frame() -> None:
    one = torch.randn(1, 10, 4, generator=torch.Generator().manual_seed(2))
    assert onsets_keep(one, budget=10, refresh=5).tolist() == list(range(10))
    assert onsets_keep(one, budget=4, refresh=5).tolist() == list(range(10))
    assert onsets_keep(torch.cat([one, -one, one]), budget=0, refresh=5).tolist() == list(range(10))
    for budget, refresh in ((-1, 5), (3, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            onsets_keep(one, budget, refresh)


def test_a_run_is_measured_from_where_it_began() -> None:
    """A slow turn adds up: each step is small, and the sixth stands away from the run's first token."""
    angles = 0.1 * torch.arange(12.0)
    turning = torch.stack([angles.cos(), angles.sin()], 1)[:, None]  # (12, 1, 2)
    began = shown(chords(turning), torch.tensor(0.55), refresh=100)
    assert began[0].nonzero().flatten().tolist() == [0, 6]
    assert shown(chords(turning), torch.tensor(0.55), refresh=4)[0].nonzero().flatten().tolist() == [0, 4, 6, 10], (
        "a refresh does not begin a run"
    )


@pytest.mark.parametrize("layout", ["onevision", "llava_video"])
@pytest.mark.parametrize("p", [0.05, 0.5, 1.0, 2.0, 2.5, 4.0])
def test_the_plan_keeps_positions_and_the_papers_budgets(
    request: pytest.FixtureRequest, layout: str, p: float, pixels: Tensor
) -> None:
    """Newline columns of LLaVA-Video are columns like any other. At p = 2.5 all of it enters."""
    model: adatp.VideoLLM = request.getfixturevalue(layout)
    asked = adatp.Request("x", model.encode(pixels), "red", method="onsets", p=p, max_new_tokens=2, trace=True)
    result = adatp.Engine(model).run([asked])["x"]
    counts = budgets(result.n_visual_tokens, model.n_layers, p, 2, 4)
    spent = result.visual_tokens_per_layer
    assert spent[0] == spent[1] <= max(model.tokens_per_frame, counts[2])
    assert spent[2:] == tuple(min(spent[0], count) for count in counts[2:])
    plan = Onsets().plan(clip_of(asked, model))
    assert plan.keeps_positions
    assert result.kept is not None
    assert list(result.kept[0]) == plan.origin.tolist()
    assert torch.equal(plan.tokens, asked.visual.tokens.flatten(0, 1)[plan.origin])
    assert (spent[0] == result.n_visual_tokens) == (p >= 2.5)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.35, 0.6, 1.0])
def test_a_share_is_met_where_the_clip_can_spend_it(onevision: adatp.VideoLLM, share: float) -> None:
    """Frames that all differ spend all of any budget."""
    visual = onevision.encode(torch.randn(16, 3, 40, 40, generator=torch.Generator().manual_seed(3)))
    result = adatp.Engine(onevision).run(
        [adatp.Request("x", visual, "red", method="onsets", share=share, max_new_tokens=1)]
    )["x"]
    assert sum(result.visual_tokens_per_layer) / (8 * 144) == pytest.approx(share, abs=0.02)


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="refresh of at least 1"):
        Onsets(refresh=0)
    with pytest.raises(ValueError, match="theta_floor in"):
        Onsets(theta_floor=4.0)
