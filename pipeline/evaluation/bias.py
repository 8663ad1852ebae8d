"""Where a Video LLM's text looks, layer by layer, over frames and over positions (paper Sec. 3.2).

Legend: N layers, n frames, c visual tokens per frame.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from adatp import Engine, Request, Visual
from adatp.plan import Clip, Cut, Plan, everything

TOP_SHARE = 0.10  # the paper's "top-10% attended tokens"
LAST_SHARE = 1 / 8  # its "last 4 of 32 frames"


@dataclass(frozen=True)
class _Watch:
    """A pruning method that drops nothing and writes down the scores it is shown on entry to each layer."""

    scores: list[Tensor] = field(default_factory=list)

    def plan(self, clip: Clip) -> Plan:
        before = everything(clip)
        cuts = tuple(Cut(layer, self._select, rows="text") for layer in range(1, clip.n_layers))
        return Plan(before.tokens, before.origin, keeps_positions=True, cuts=cuts)

    def _select(self, origin: Tensor, scores: Tensor | None) -> Tensor:
        assert scores is not None
        self.scores.append(scores.cpu())
        return torch.arange(len(origin), device=origin.device)


def attention_of_text(engine: Engine, visual: Visual, prompt: str) -> Tensor:
    """s^l of the paper for layers 0..N-2 of an unpruned prefill, (N - 1, n, c) float32."""
    watch = _Watch()
    engine.run([Request("watched", visual, prompt, method=watch, max_new_tokens=1)])
    return torch.stack(watch.scores).view(-1, visual.n_steps, visual.tokens_per_frame)


def recency(scores: Tensor) -> Tensor:
    """Share of each layer's top-10% tokens that lies in the last eighth of the frames, (N - 1,). 86.8% in the paper.

    No bias would read 12.5%. `scores` (N - 1, n, c); at least one token and one frame are taken.
    """
    _, n, c = scores.shape
    n_top, first_late = max(1, round(TOP_SHARE * n * c)), n - max(1, round(LAST_SHARE * n))
    top = scores.flatten(1).topk(n_top).indices  # (N - 1, n_top)
    return (top // c >= first_late).float().mean(1)


def position_peak(scores: Tensor) -> Tensor:
    """Attention of each layer's most attended position over the mean of all positions, (N - 1,). 5.77 in the paper."""
    by_position = scores.mean(1)  # (N - 1, c)
    return by_position.amax(1) / by_position.mean(1)
