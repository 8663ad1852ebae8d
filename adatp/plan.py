"""What a pruning method sees of a clip, and what it answers: tokens for layer 0 and cuts on entry to later layers.

A method is a frozen dataclass whose `plan(clip)` returns a `Plan`. It holds options alone: everything that belongs to
one request lives in the `Clip` it is given and in the `Plan` it returns, so two clips can never meet.

Legend: n frames of c visual tokens, V0 = n * c, d hidden size. The *origin* of a visual token is frame * c + position.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from adatp.schedule import mean_share
from adatp.visual import Visual


@dataclass(frozen=True)
class Clip:
    """One clip as a method sees it. `visual` holds all n frames, or only those named in `frames` (ascending).

    Where the tower makes one grid of tokens of two frames, such a step counts as one frame here, in `segments` too.

    words: input embeddings of the question, (T, d); None where the prompt names nothing.
    share: see `Request.share`.
    """

    visual: Visual
    n_frames: int
    frames: tuple[int, ...]
    segments: tuple[int, ...] | None
    relevance: tuple[float, ...] | None
    n_layers: int
    p: float
    words: Tensor | None = None
    share: float | None = None

    @property
    def n_visual(self) -> int:
        """V0: the visual tokens an unpruned prompt of this clip holds."""
        return self.n_frames * self.visual.tokens_per_frame

    @property
    def mean_share(self) -> float:
        """Mean over layers of the share of V0 that methods with a ratio of their own may keep."""
        return mean_share(self.n_visual, self.n_layers, self.p) if self.share is None else self.share

    @property
    def origin(self) -> Tensor:
        """Origin of each token of `visual`, frame by frame, (len(frames) * c,), int64."""
        c, device = self.visual.tokens_per_frame, self.visual.tokens.device
        first = torch.tensor(self.frames, device=device)[:, None] * c
        return (first + torch.arange(c, device=device)).flatten()


Select = Callable[[Tensor, Tensor], Tensor]
"""(origin (m,), scores (m,)) of the tokens alive -> indices of those to keep, ascending, (k,)."""


@dataclass(frozen=True)
class Cut:
    """Tokens dropped on entry to `layer`.

    rows: whose attention scores the tokens: all text after the video, or the prompt's last token.
    scored_by: the layer that just ran, or the one about to run (its norm, projections and RoPE).
    renumber: survivors take positions 0..L'-1 from here on, where positions have one axis; otherwise they keep theirs.
    """

    layer: int
    select: Select
    rows: Literal["text", "last"]
    scored_by: Literal["previous", "next"] = "previous"
    renumber: bool = False


@dataclass(frozen=True)
class Plan:
    """What enters layer 0, and the cuts after it, by ascending layer."""

    tokens: Tensor  # (k, d)
    origin: Tensor  # (k,) int64; a merged token carries the origin of the token it was merged into
    keeps_positions: bool
    """True: position ids of the unpruned prompt. False: fresh consecutive ids, as if the others had never been; where
    positions have three axes (M-RoPE) a token keeps its coordinates all the same."""
    cuts: tuple[Cut, ...] = ()


class Method(Protocol):
    """A pruning method: options, and one act."""

    def plan(self, clip: Clip) -> Plan: ...


def everything(clip: Clip) -> Plan:
    """All tokens, no cut: what methods inside the LLM start from."""
    return Plan(clip.visual.tokens.flatten(0, 1), clip.origin, keeps_positions=True)


def kept(clip: Clip, index: Tensor, keeps_positions: bool = False) -> Plan:
    """A method before the LLM: the tokens at `index` (into frame-major order), in that order."""
    return Plan(clip.visual.tokens.flatten(0, 1)[index], clip.origin[index], keeps_positions)
