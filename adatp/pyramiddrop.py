"""PyramidDrop (arXiv 2410.17247): the visual tokens shrink in stages (METHOD 2.4)."""

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from adatp.fastv import fastv_keep
from adatp.plan import Clip, Cut, Plan, everything


def pyramiddrop_keep(scores: Tensor, n_visual: int, ratio: float) -> Tensor:
    """Indices of the top int(V0 * ratio) tokens in raster order: scores of those alive, (m,) -> (k,).

    `scores` is the last instruction token's attention, computed with the coming layer's norm, projections and RoPE.
    """
    return fastv_keep(scores, int(n_visual * ratio))


@dataclass(frozen=True)
class PyramidDrop:
    """Stages after `depths` layers, keeping `ratios` of V0; survivors are renumbered 0..L'-1 at each stage.

    depths None: quarters of the decoder (7, 14, 21 of 28), as the official 8, 16, 24 of 32.
    ratios None: x, x^2, x^3 with the x that costs as much as AdaTP's schedule at the request's p (official: x = 1/2).
    """

    depths: tuple[int, ...] | None = None
    ratios: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        falling = self.ratios is None or list(self.ratios) == sorted(self.ratios, reverse=True)
        if not falling or any(not 0 <= x <= 1 for x in self.ratios or ()):
            raise ValueError(f"expected falling ratios in 0..1, got {self.ratios}")
        if self.depths is not None and self.ratios is not None and len(self.depths) != len(self.ratios):
            raise ValueError(f"expected one ratio for each of {len(self.depths)} depths, got {len(self.ratios)}")

    def plan(self, clip: Clip) -> Plan:
        n = clip.n_layers
        depths = (n // 4, n // 2, 3 * n // 4) if self.depths is None else self.depths
        if list(depths) != sorted(set(depths)) or not all(0 < depth < n for depth in depths):
            raise ValueError(f"expected rising depths inside 1..{n - 1}, got {depths}")
        ratios = self._solved_ratios(clip, depths) if self.ratios is None else self.ratios
        before = everything(clip)
        cuts = tuple(
            Cut(depth, partial(_select, clip.n_visual, ratio), rows="last", scored_by="next", renumber=True)
            for depth, ratio in zip(depths, ratios, strict=True)
        )
        return Plan(before.tokens, before.origin, keeps_positions=True, cuts=cuts)

    def _solved_ratios(self, clip: Clip, depths: tuple[int, ...]) -> tuple[float, ...]:
        target = clip.mean_share * clip.n_layers
        spans = [b - a for a, b in zip(depths, [*depths[1:], clip.n_layers], strict=True)]
        low, high = 0.0, 1.0
        for _ in range(50):  # bisection: the cost rises with x
            x = (low + high) / 2
            cost = depths[0] + sum(span * x ** (i + 1) for i, span in enumerate(spans))
            low, high = (x, high) if cost < target else (low, x)
        return tuple(high ** (i + 1) for i in range(len(depths)))


def _select(n_visual: int, ratio: float, origin: Tensor, scores: Tensor) -> Tensor:
    return pyramiddrop_keep(scores, n_visual, ratio)
