"""From uint8 frames to the numbers a vision tower reads. The torch half of resize.py."""

import torch

from pipeline.decoding.resize import Normalisation


def normalise(frames: torch.Tensor, how: Normalisation) -> torch.Tensor:
    """(n, H, W, 3) uint8 -> (n, 3, H, W) float32."""
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"expected uint8 (n, H, W, 3), got {frames.dtype} {tuple(frames.shape)}")
    mean, std = (torch.tensor(x, device=frames.device).view(1, 3, 1, 1) for x in (how.mean, how.std))
    pixels = frames.permute(0, 3, 1, 2).float() * how.scale  # (n, 3, H, W)
    return (pixels - mean) / std
