"""V-CAST (arXiv 2603.27650): more tokens for frames at which the video turns, of each frame those that stand out.

Legend: n frames of c tokens, d hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adatp.plan import Clip, Plan, kept

_TEMPERATURE = 0.7


def vcast_keep(frames: Tensor, n_keep: int) -> Tensor:
    """Indices of the tokens kept, ascending: (n, c, d) -> (max(n, n_keep),). Equal ones: the lower index is kept.

    The mean tokens of the frames, normalised, are a path r. A frame's weight is the softmax of 1 - cosine between the
    step to it and the step from it (1 at both ends, and where a step is zero). Of each frame the tokens with the
    highest 1 - cos(x, r) + norm stay, the norm scaled to 0..1 within the frame.
    """
    n, c, _ = frames.shape
    x = frames.float()
    path = torch.nn.functional.normalize(x.mean(1), dim=-1)  # (n, d)
    turn = path.new_ones(n)
    step = path.diff(dim=0)  # (n - 1, d)
    turn[1:-1] = 1 - torch.nn.functional.cosine_similarity(step[:-1], step[1:], dim=-1)
    counts = vcast_counts((turn / _TEMPERATURE).softmax(0).tolist(), n_keep, c)
    norm = x.norm(dim=-1)
    low, high = norm.amin(1, keepdim=True), norm.amax(1, keepdim=True)
    scaled = torch.where(high > low, (norm - low) / (high - low), 0)
    score = 1 - torch.nn.functional.cosine_similarity(x, path[:, None], dim=-1) + scaled  # (n, c)
    rank = score.sort(dim=1, descending=True, stable=True).indices.argsort(1)
    return (rank < torch.tensor(counts, device=x.device)[:, None]).flatten().nonzero().flatten()


def vcast_counts(weights: Sequence[float], n_keep: int, c: int) -> list[int]:
    """Tokens of each frame: 1 + floor(weight * (n_keep - n)), at most c; what is left goes one each to the frames that
    are not full, by largest fraction, ties to the earlier, round after round."""
    n = len(weights)
    exact = [1 + w * max(0, n_keep - n) for w in weights]
    counts = [min(c, int(x)) for x in exact]
    by_fraction = sorted(range(n), key=lambda i: (int(exact[i]) - exact[i], i))
    left = min(max(n, n_keep), n * c) - sum(counts)
    while left > 0:
        for i in [i for i in by_fraction if counts[i] < c][:left]:
            counts[i] += 1
            left -= 1
    return counts


@dataclass(frozen=True)
class VCast:
    """Keep `keep` of the tokens, at least one a frame, at their own positions. Asks no question."""

    keep: float | None = None
    """None: what costs as much as AdaTP's schedule at the request's p."""

    def __post_init__(self) -> None:
        if self.keep is not None and not 0 <= self.keep <= 1:
            raise ValueError(f"expected keep in 0..1, got {self.keep}")

    def plan(self, clip: Clip) -> Plan:
        keep = clip.mean_share if self.keep is None else self.keep
        return kept(clip, vcast_keep(clip.visual.tokens, round(keep * clip.n_visual)), keeps_positions=True)
