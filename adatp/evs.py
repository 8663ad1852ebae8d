"""EVS, efficient video sampling (arXiv 2510.14624), as serving engines ship it: tokens unlike the frame before.

Legend: n frames of c tokens, d hidden size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from adatp.plan import Clip, Plan, kept

FIRST_FRAME = 255.0  # above every 1 - cosine: the first frame always stays


def evs_keep(frames: Tensor, n_keep: int) -> Tensor:
    """Indices of the tokens kept, ascending: (n, c, d) -> (max(c, n_keep),). Equal ones: the lower index is kept.

    A token's score is 1 - cosine with the token at its position in the frame before. One ranking for the whole clip.
    """
    unit = torch.nn.functional.normalize(frames.float(), dim=-1)
    change = 1 - (unit[1:] * unit[:-1]).sum(-1)  # (n - 1, c)
    score = torch.cat([change.new_full((1, frames.shape[1]), FIRST_FRAME), change]).flatten()
    order = score.sort(descending=True, stable=True).indices
    return order[: max(frames.shape[1], n_keep)].sort().values


@dataclass(frozen=True)
class EVS:
    """Keep `keep` of the tokens, but at least the whole first frame, at their own positions. Asks no question."""

    keep: float | None = None
    """1 - q of the method. None: what costs as much as AdaTP's schedule at the request's p."""

    def __post_init__(self) -> None:
        if self.keep is not None and not 0 <= self.keep <= 1:
            raise ValueError(f"expected keep in 0..1, got {self.keep}")

    def plan(self, clip: Clip) -> Plan:
        keep = clip.mean_share if self.keep is None else self.keep
        return kept(clip, evs_keep(clip.visual.tokens, int(keep * clip.n_visual)), keeps_positions=True)
