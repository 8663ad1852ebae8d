"""FastV (arXiv 2403.06764): one cut, by the attention of the prompt's last token (METHOD 2.1)."""

from dataclasses import dataclass

from torch import Tensor

from adatp.plan import Clip, Cut, Plan, everything


def fastv_keep(scores: Tensor, n_keep: int) -> Tensor:
    """Indices of the `n_keep` best scored visual tokens, ascending: (V,) -> (n_keep,). Ties go to the lower index.

    `scores` is the last prompt token's attention in layer K-1, mean over heads, its softmax over the whole sequence.
    """
    best = scores.sort(descending=True, stable=True).indices[:n_keep]
    return best.sort().values


@dataclass(frozen=True)
class FastV:
    """Cut on entry to `layer` (the paper's K), keeping `keep` = 1 - R of the visual tokens, at their own positions."""

    layer: int = 2
    keep: float | None = None
    """None: what costs as much as AdaTP's schedule at the request's p."""

    def __post_init__(self) -> None:
        if self.layer < 1 or (self.keep is not None and not 0 <= self.keep <= 1):
            raise ValueError(f"expected layer >= 1 and keep in 0..1, got layer={self.layer} keep={self.keep}")

    def plan(self, clip: Clip) -> Plan:
        if self.layer >= clip.n_layers:
            raise ValueError(f"expected a layer below the decoder's {clip.n_layers}, got {self.layer}")
        keep = self._solved_keep(clip) if self.keep is None else self.keep
        n_keep = round(clip.n_visual * keep)
        before = everything(clip)
        cut = Cut(self.layer, lambda origin, scores: fastv_keep(scores, n_keep), rows="last")
        return Plan(before.tokens, before.origin, keeps_positions=True, cuts=(cut,))

    def _solved_keep(self, clip: Clip) -> float:
        """K layers see everything; the other N - K share what is left of the schedule's total."""
        total = clip.mean_share * clip.n_layers
        return min(1.0, max(0.0, (total - self.layer) / (clip.n_layers - self.layer)))
