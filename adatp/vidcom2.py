"""VidCom2 (arXiv 2505.14454): frames unlike the video, and tokens unlike both, are kept (METHOD 2.8).

Legend: n frames, c patch tokens of a frame, d hidden size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from adatp.plan import Clip, Plan, kept

_SCALES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0)
_TEMPERATURE = 0.01


def vidcom2_keep(tokens: Tensor, ratio: float) -> list[Tensor]:
    """Which tokens of each frame are kept, in raster order: (n, c, d) -> n index tensors into 0..c-1.

    On the half of the channels that vary least, normalised, g(x, centre) sums Gaussian kernels of the distance to the
    video's and to the frame's mean. A frame's ratio rises with its distance from the video; of each frame the
    round(ratio * c) tokens with the lowest g_video + g_frame stay. Ties go to the lower index.
    """
    _, c, d = tokens.shape
    x = tokens.float()
    quiet = x.flatten(0, 1).var(0).sort(stable=True).indices[: d // 2]
    x = torch.nn.functional.normalize(x[..., quiet], dim=-1)  # (n, c, d / 2)
    g_video = _kernel_sum(x, x.mean((0, 1)))  # (n, c)
    g_frame = _kernel_sum(x, x.mean(1, keepdim=True))
    frame_score = -g_video.mean(1)  # (n,)
    weight = ((frame_score - frame_score.max()) / _TEMPERATURE).softmax(0)
    frame_ratio = ratio * (1 + weight - weight.mean())
    order = (g_video + g_frame).sort(dim=1, stable=True).indices  # (n, c) least alike first
    counts = (frame_ratio * c).round().clamp(0, c).long().tolist()
    return [order[frame, :count].sort().values for frame, count in enumerate(counts)]


def _kernel_sum(x: Tensor, centre: Tensor) -> Tensor:
    """g(x, centre): (n, c, w) -> (n, c)."""
    squared = (x - centre).square().sum(-1)
    return torch.stack([(-squared / (2 * a)).exp() for a in _SCALES]).sum(0)


@dataclass(frozen=True)
class VidCom2:
    """Keep `keep` of the patch tokens, renumbered. Row newlines, where the layout has them, stay in place."""

    keep: float | None = None
    """None: what costs as much as AdaTP's schedule at the request's p."""

    def __post_init__(self) -> None:
        if self.keep is not None and not 0 <= self.keep <= 1:
            raise ValueError(f"expected keep in 0..1, got {self.keep}")

    def plan(self, clip: Clip) -> Plan:
        visual, c = clip.visual, clip.visual.tokens_per_frame
        patches = visual.patch_columns
        keep = self.keep
        if keep is None:
            total = clip.mean_share * c
            keep = min(1.0, max(0.0, (total - (c - len(patches))) / len(patches)))
        mask = torch.ones(visual.n_steps, c, dtype=torch.bool, device=visual.tokens.device)
        mask[:, patches] = False
        for frame, index in enumerate(vidcom2_keep(visual.tokens[:, patches], keep)):
            mask[frame, patches[index]] = True
        return kept(clip, mask.flatten().nonzero().flatten())
