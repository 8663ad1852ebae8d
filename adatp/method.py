"""AdaTP (arXiv 2505.20100): progressive pruning guided by debiased attention. This file reads like its Section 3.

On entry to every layer of the schedule each segment keeps its best scored tokens, at a ratio that the question's
relevance decides (global debiasing), and of those only the first at each spatial position (local debiasing).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from adatp.debias import debiased_ratios, first_at_each_position, quotas, top_of_each_segment
from adatp.plan import Clip, Cut, Plan, everything
from adatp.schedule import DEFAULT_START, budgets, check_span, default_end
from adatp.segments import representative_frames, segment_of_frame


@dataclass(frozen=True)
class AdaTP:
    """The method and its switches; defaults are the paper's (Sec. 4.1), for every model.

    Global debiasing acts only where the request carries relevances: a caption prompt names nothing. Table 2's rows are
    (segments, global_debias, local_debias) = (F, F, F), (T, F, F), (T, T, F), (T, T, T).
    """

    tau_t: float = 0.05
    alpha: float = 2.2  # alpha_boost of Eq. 4
    gamma: float = 0.75  # gamma_cap of Eq. 4
    start: int = DEFAULT_START
    end: int | None = None
    """Layer entered with p * 12%. None: N - 12 (Sec. 4.3), N / 2 below 16 layers. N - 11 is Sec. 4.1 to the letter."""
    segments: bool = True
    global_debias: bool = True
    local_debias: bool = True
    literal: bool = False
    """Eq. 4-5 to the letter instead of the guarded form: loses budget when all segments are significant."""
    rows: Literal["text", "last"] = "text"
    representative_frames: int | None = None
    """Beyond the paper (`adatp+repframes`): only so many frames of each segment are encoded and enter layer 0."""

    def __post_init__(self) -> None:
        if not self.segments and (self.global_debias or self.local_debias or self.representative_frames):
            raise ValueError(
                "segments=False needs global_debias=False, local_debias=False and no representative_frames: "
                "all three act inside segments"
            )
        if self.alpha <= 0 or not 0 < self.gamma <= 1:
            raise ValueError(f"expected alpha > 0 and 0 < gamma <= 1, got alpha={self.alpha} gamma={self.gamma}")
        if self.rows not in ("text", "last"):
            raise ValueError(f"expected rows 'text' or 'last', got {self.rows!r}")
        if self.representative_frames is not None and self.representative_frames < 1:
            raise ValueError(f"expected representative_frames of at least 1, got {self.representative_frames}")

    def plan(self, clip: Clip) -> Plan:
        end = default_end(clip.n_layers) if self.end is None else self.end
        check_span(clip.n_layers, self.start, end)
        lengths = self._lengths(clip)
        counts = budgets(clip.n_visual, clip.n_layers, clip.p, self.start, end)
        cuts = tuple(
            Cut(layer, self._selection(clip, lengths, counts[layer]), self.rows)
            for layer in range(self.start, end + 1)
            if counts[layer] < clip.n_visual  # a budget of everything is no cut: no selection, no dedup
        )
        before = everything(clip)
        return Plan(before.tokens, before.origin, keeps_positions=True, cuts=cuts)

    def frames_encoded(self, clip_segments: tuple[int, ...]) -> tuple[int, ...]:
        """The frames that must be encoded: all of them, or the representative ones."""
        if self.representative_frames is None:
            return tuple(range(sum(clip_segments)))
        return representative_frames(clip_segments, self.representative_frames)

    def _lengths(self, clip: Clip) -> tuple[int, ...]:
        if not self.segments:
            return (clip.n_frames,)
        assert clip.segments is not None  # a request without them is refused at birth
        return clip.segments

    def _selection(self, clip: Clip, lengths: tuple[int, ...], budget: int) -> "Selection":
        c = clip.visual.tokens_per_frame
        relevance = clip.relevance if self.global_debias else None
        significant = [relevance is not None and relevance[g] > self.tau_t for g in range(len(lengths))]
        n_significant = sum(length for length, is_in in zip(lengths, significant, strict=True) if is_in)
        r1, r2 = debiased_ratios(
            clip.n_frames, n_significant, budget / clip.n_visual, self.alpha, self.gamma, self.literal
        )
        quota = quotas(lengths, [r1 if is_in else r2 for is_in in significant], c)
        device = clip.visual.tokens.device
        return Selection(segment_of_frame(lengths).to(device), torch.tensor(quota, device=device), c, self.local_debias)


@dataclass(frozen=True)
class Selection:
    """One cut of one clip: per segment the best `quota` tokens, then Algorithm 1 where local debiasing is on."""

    segment: Tensor  # (n,) of each frame
    quota: Tensor  # (G,)
    tokens_per_frame: int
    local_debias: bool

    def __call__(self, origin: Tensor, scores: Tensor) -> Tensor:
        """Indices to keep, ascending. origin: (m,) of the tokens alive. scores: (m,)."""
        segment = self.segment[origin // self.tokens_per_frame]
        walk, chosen = top_of_each_segment(scores, segment, self.quota)
        if self.local_debias:
            c = self.tokens_per_frame
            chosen = first_at_each_position(walk, chosen, segment, origin % c, len(self.quota), c)
        keep = torch.zeros_like(chosen).scatter_(0, walk, chosen)
        return keep.nonzero().flatten()  # the one wait for the device: how many are left
