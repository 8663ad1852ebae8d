"""Content onsets: a token enters layer 0 where something new begins at its position, and again from time to time.

Its own method, built on AdaTP (arXiv 2505.20100), whose schedule and text-to-visual attention decide after that. It
uses no segments, no threshold of an encoder and no relevance. docs/adatp.md defines it to the last tie.

Legend: n frames of c positions, d hidden size, V0 = n * c; angles in radians between tokens as they enter layer 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from adatp.fastv import fastv_keep
from adatp.plan import Clip, Cut, Plan
from adatp.schedule import DEFAULT_START, FIRST_SHARE, budgets, default_end, share

HALVINGS = 20  # of [0, pi]: theta to 3e-6 rad


def onsets_keep(frames: Tensor, budget: int, refresh: int, theta_floor: float = 0.0) -> Tensor:
    """Which tokens enter layer 0: (n, c, d) -> indices into the n * c tokens, ascending.

    At each position a run begins at frame 0, and wherever the angle to the token that began the run exceeds theta. Of
    a run the first token is kept and every `refresh`-th after it. theta is the smallest that fits the budget, found by
    bisection over [theta_floor, pi]. Where one run a position does not fit, `refresh` counts up until it does. The
    first frame is always whole: a budget below one frame counts as one. Nothing but the final index waits for the
    device.

    Args:
        frames: tokens as they enter layer 0; only their directions count.
        budget: tokens that may enter; all of them enter where there are no more.
        refresh: K, frames after which a position is shown again.
        theta_floor: the smallest theta tried; above 0 it leaves budget unspent where little happens.
    """
    n, c, _ = frames.shape
    if budget < 0 or refresh < 1:
        raise ValueError(f"expected budget of at least 0 and refresh of at least 1, got {budget} and {refresh}")
    budget = max(budget, c)
    if budget >= n * c:
        return torch.arange(n * c, device=frames.device)
    while c * -(-n // refresh) > budget:  # a position's one run shows ceil(n / refresh) tokens
        refresh += 1
    apart = chords(frames)
    theta = smallest_theta(apart, budget, refresh, theta_floor)
    return shown(apart, theta, refresh).T.flatten().nonzero().flatten()


def smallest_theta(apart: Tensor, budget: int, refresh: int, theta_floor: float = 0.0) -> Tensor:
    """The upper end of [theta_floor, pi] halved `HALVINGS` times towards the smallest theta that fits, a scalar."""
    low = torch.tensor(theta_floor, device=apart.device)
    high = torch.tensor(math.pi, device=apart.device)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        fits = shown(apart, middle, refresh).sum() <= budget
        low, high = torch.where(fits, low, middle), torch.where(fits, middle, high)
    return high


def chords(frames: Tensor) -> Tensor:
    """Distances of the unit tokens of every two frames at each position: (n, c, d) -> (c, n, n), 0 below the diagonal.

    A distance grows with the angle, 2 sin(angle / 2), and is exactly 0 between equal tokens, where a cosine is not 1.
    """
    unit = torch.nn.functional.normalize(frames.float(), dim=-1).transpose(0, 1)
    every = torch.cdist(unit, unit, compute_mode="donot_use_mm_for_euclid_dist")
    return every.clamp(max=2).triu(1)


def shown(apart: Tensor, theta: Tensor, refresh: int) -> Tensor:
    """Onsets and refreshes at this theta, (c, n) bool; `apart` as from `chords`."""
    frame = torch.arange(apart.shape[1], device=apart.device)
    began = run_begins(apart > 2 * (theta / 2).sin())
    start = torch.where(began, frame, 0).cummax(1).values  # (c, n) where the run began that each frame belongs to
    return (frame - start) % refresh == 0


def run_begins(differs: Tensor) -> Tensor:
    """Frames at which a run begins: (c, n, n) -> (c, n) bool, `differs[j, g, f]` whether f > g ends a run begun at g.

    The runs of a position are a chain of frames, each followed by the first that differs from it. All chains are
    walked at once, in steps that double: log2(n) of them instead of n.
    """
    c, n, _ = differs.shape
    end = differs.new_ones(c, n, 1)
    following = torch.cat([differs, end], 2).to(torch.uint8).argmax(2)  # (c, n) n where no run follows
    ahead = torch.cat([following, following.new_full((c, 1), n)], 1)  # (c, n + 1)
    began = differs.new_zeros(c, n + 1)
    began[:, 0] = True
    for _ in range(n.bit_length()):
        began = began.scatter(1, ahead.masked_fill(~began, n), True)
        ahead = ahead.gather(1, ahead)
    return began[:, :n]


@dataclass(frozen=True)
class Onsets:
    """At most p * 40% of V0 enters layer 0; from layer 2 on AdaTP's budgets hold, by plain attention of the text.

    All tokens of the clip compete in one pool; nothing is removed for standing where another stands.
    """

    refresh: int = 5
    """K: frames after which a position is shown again, however little it changed."""
    theta_floor: float = 0.0
    """The smallest angle, in radians, that may count as a change."""

    def __post_init__(self) -> None:
        if self.refresh < 1 or not 0 <= self.theta_floor < math.pi:
            raise ValueError(
                f"expected refresh of at least 1 and theta_floor in [0, pi), got refresh={self.refresh} "
                f"theta_floor={self.theta_floor}"
            )

    def plan(self, clip: Clip) -> Plan:
        p = clip.p if clip.share is None else _p_that_costs(clip.share, clip.n_layers)
        counts = budgets(clip.n_visual, clip.n_layers, p, DEFAULT_START, default_end(clip.n_layers))
        index = onsets_keep(clip.visual.tokens, counts[DEFAULT_START], self.refresh, self.theta_floor)
        return scheduled(clip, index, counts)


def scheduled(clip: Clip, index: Tensor, counts: Sequence[int]) -> Plan:
    """The tokens at `index` enter layer 0; on entry to layer l the counts[l] best by the text's attention stay."""
    cuts = tuple(
        Cut(layer, partial(_best, counts[layer]), rows="text")
        for layer in range(DEFAULT_START, default_end(clip.n_layers) + 1)
        if counts[layer] < len(index)
    )
    return Plan(clip.visual.tokens.flatten(0, 1)[index], clip.origin[index], keeps_positions=True, cuts=cuts)


def _best(n_keep: int, origin: Tensor, scores: Tensor) -> Tensor:
    return fastv_keep(scores, n_keep)


def _p_that_costs(wanted: float, n_layers: int) -> float:
    """The p at which the mean over layers of the budgets is `wanted` of V0."""
    end = default_end(n_layers)
    at_one = [FIRST_SHARE if layer < DEFAULT_START else share(layer, DEFAULT_START, end) for layer in range(n_layers)]
    low, high = 0.0, 1 / min(at_one)
    for _ in range(50):  # bisection: the cost rises with p
        p = (low + high) / 2
        cost = sum(min(1.0, p * x) for x in at_one) / n_layers
        low, high = (p, high) if cost < wanted else (low, p)
    return high
