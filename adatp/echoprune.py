"""EchoPrune (arXiv 2605.10050): tokens the question names, less what the frame before already told.

Legend: n frames of c tokens, d hidden size, T words of the question.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from adatp.plan import Clip, Plan, kept

_TEMPERATURE = 0.5


def echoprune_keep(frames: Tensor, words: Tensor | None, n_keep: int) -> Tensor:
    """Indices of the `n_keep` tokens kept, ascending: (n, c, d), (T, d) -> (n_keep,). Ties go to the lower index.

    score = relevance - correspondence - echo: the best cosine with a word; the cosine with the token at its position
    in the frame before; the inner product with the softmax-weighted sum of that frame's tokens. The first frame gets
    max(1, n_keep // n) tokens by relevance alone; the rest are the best of all other frames together.

    Args:
        words: the question's input embeddings. None: nothing is named, relevance is 0.
    """
    n, c, _ = frames.shape
    unit = torch.nn.functional.normalize(frames.float(), dim=-1)
    relevance = unit.new_zeros(n, c)
    if words is not None and len(words):
        relevance = (unit @ torch.nn.functional.normalize(words.float(), dim=-1).T).amax(-1)
    alike = unit[1:] @ unit[:-1].transpose(1, 2)  # (n - 1, c, c)
    correspondence = alike.diagonal(dim1=1, dim2=2)  # (n - 1, c)
    echo = ((alike / _TEMPERATURE).softmax(-1) * alike).sum(-1)
    first = min(n_keep, c, max(1, n_keep // n))
    opening = _best(relevance[0], first)
    others = _best((relevance[1:] - correspondence - echo).flatten(), n_keep - first)
    return torch.cat([opening, c + others]).sort().values


def _best(score: Tensor, n_keep: int) -> Tensor:
    return score.sort(descending=True, stable=True).indices[:n_keep]


@dataclass(frozen=True)
class EchoPrune:
    """Keep `keep` of the tokens at their own positions. A frame may be left without any."""

    keep: float | None = None
    """None: what costs as much as AdaTP's schedule at the request's p."""

    def __post_init__(self) -> None:
        if self.keep is not None and not 0 <= self.keep <= 1:
            raise ValueError(f"expected keep in 0..1, got {self.keep}")

    def plan(self, clip: Clip) -> Plan:
        keep = clip.mean_share if self.keep is None else self.keep
        n_keep = round(keep * clip.n_visual)
        return kept(clip, echoprune_keep(clip.visual.tokens, clip.words, n_keep), keeps_positions=True)
