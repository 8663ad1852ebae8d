"""The controls every pruning method must beat: all tokens, random tokens, a uniform stride, fewer frames."""

from dataclasses import dataclass

import torch
from torch import Tensor

from adatp.plan import Clip, Plan, everything, kept


def evenly(n: int, n_keep: int) -> Tensor:
    """`n_keep` of 0..n-1, evenly spread from the middle of equal parts, ascending."""
    return ((2 * torch.arange(n_keep) + 1) * n) // (2 * n_keep) if n_keep else torch.arange(0)


@dataclass(frozen=True)
class NoPruning:
    """Every token in every layer: transformers' own computation. The request's p means nothing here."""

    def plan(self, clip: Clip) -> Plan:
        return everything(clip)


@dataclass(frozen=True)
class _Share:
    """Options of the controls: the share of tokens kept before layer 0; the survivors are renumbered."""

    keep: float | None = None
    """None: what costs as much as AdaTP's schedule at the request's p."""

    def __post_init__(self) -> None:
        if self.keep is not None and not 0 < self.keep <= 1:
            raise ValueError(f"expected keep in (0, 1], got {self.keep}")

    def share(self, clip: Clip) -> float:
        return clip.mean_share if self.keep is None else self.keep


@dataclass(frozen=True)
class RandomTokens(_Share):
    """A random subset; the same seed gives the same subset of equally long clips."""

    seed: int = 0

    def plan(self, clip: Clip) -> Plan:
        n_keep = round(self.share(clip) * clip.n_visual)
        order = torch.randperm(clip.n_visual, generator=torch.Generator().manual_seed(self.seed))
        return kept(clip, order[:n_keep].sort().values.to(clip.visual.tokens.device))


@dataclass(frozen=True)
class UniformTokens(_Share):
    """Every so many-th token."""

    def plan(self, clip: Clip) -> Plan:
        n_keep = round(self.share(clip) * clip.n_visual)
        return kept(clip, evenly(clip.n_visual, n_keep).to(clip.visual.tokens.device))


@dataclass(frozen=True)
class FrameDrop(_Share):
    """Fewer frames, whole, evenly spread; at least one."""

    def plan(self, clip: Clip) -> Plan:
        n_keep = max(1, round(self.share(clip) * clip.n_frames))
        frames = evenly(clip.n_frames, n_keep)
        c = clip.visual.tokens_per_frame
        return kept(clip, (frames[:, None] * c + torch.arange(c)).flatten().to(clip.visual.tokens.device))
