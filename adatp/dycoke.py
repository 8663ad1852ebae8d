"""DyCoke's temporal token merging (arXiv 2411.15024), which really is pruning (METHOD 2.3, stage 1).

Stage 2 of the method works on the KV cache while decoding and saves no prefill; it is not part of this library.

Legend: n frames of c tokens, d hidden size, k tokens kept of a compressed frame.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from adatp.plan import Clip, Plan, kept


def dycoke_keep(frames: Tensor, n_keep: int, official: bool = True) -> Tensor:
    """Which tokens temporal merging keeps: (n, c, d) -> indices into the n * c tokens, frame by frame.

    Frame 2i+1 keeps the `n_keep` tokens least similar (cosine, same position) to frame 2i's; frame 4i+2 those least
    similar to frame 4i's; frames 4i stay whole. Equal similarities: the lower position is kept.

    Args:
        official: as published: the last window of four is never compared, so frame n-2 stays whole; an odd last frame
            is dropped; kept tokens of a frame stand in order of similarity. False: every window is compared, the odd
            frame is kept whole, tokens stand in raster order.
    """
    n, c, _ = frames.shape
    unit = torch.nn.functional.normalize(frames.float(), dim=-1)
    n_used = n - n % 2 if official and n > 1 else n
    windows_end = n - 4 if official else n - 2
    columns = torch.arange(c, device=frames.device)
    parts = []
    for frame in range(n_used):
        if frame % 2 == 1:
            reference = frame - 1
        elif frame % 4 == 2 and frame - 2 < windows_end:
            reference = frame - 2
        else:
            parts.append(frame * c + columns)
            continue
        similarity = (unit[frame] * unit[reference]).sum(-1)  # (c,)
        least = similarity.sort(stable=True).indices[:n_keep]
        parts.append(frame * c + (least if official else least.sort().values))
    return torch.cat(parts)


@dataclass(frozen=True)
class DyCoke:
    """Compressed frames keep int((1 - prune) * c) tokens; `prune` is the paper's K."""

    prune: float | None = None
    """None: what costs nearest to AdaTP's schedule at the request's p; whole frames alone may cost more."""
    official: bool = True

    def __post_init__(self) -> None:
        if self.prune is not None and not 0 <= self.prune <= 1:
            raise ValueError(f"expected prune in 0..1, got {self.prune}")

    def plan(self, clip: Clip) -> Plan:
        c = clip.visual.tokens_per_frame
        n_keep = self._solved_keep(clip) if self.prune is None else int((1 - self.prune) * c)
        return kept(clip, dycoke_keep(clip.visual.tokens, n_keep, self.official))

    def _solved_keep(self, clip: Clip) -> int:
        """Tokens a compressed frame may keep so that all frames together meet the schedule's mean."""
        c = clip.visual.tokens_per_frame
        whole = len(dycoke_keep(clip.visual.tokens[..., :1], 0, self.official)) // c
        compressed = clip.n_frames - whole
        spare = clip.mean_share * clip.n_visual - whole * c
        return max(0, min(c, round(spare / compressed))) if compressed else c
