"""From uint8 frames to the numbers a vision tower reads. The torch half of resize.py."""

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Normalisation:
    """pixel * scale, minus mean, over std, by channel. The numbers of a preprocessor_config.json."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: float = 1 / 255


def normalisation_from(preprocessor_config: dict[str, Any]) -> Normalisation:
    """Raises ValueError when the config does not say how."""
    config = preprocessor_config
    mean, std = config.get("image_mean"), config.get("image_std")
    if not config.get("do_normalize", True) or not mean or not std or len(mean) != 3 or len(std) != 3:
        raise ValueError(f"preprocessor config: expected image_mean and image_std of 3 numbers, got {mean!r}, {std!r}")
    scale = float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0
    return Normalisation(tuple(map(float, mean)), tuple(map(float, std)), scale)  # type: ignore[arg-type]  # 3 checked


def normalise(frames: torch.Tensor, how: Normalisation) -> torch.Tensor:
    """(n, H, W, 3) uint8 -> (n, 3, H, W) float32."""
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"expected uint8 (n, H, W, 3), got {frames.dtype} {tuple(frames.shape)}")
    mean, std = (torch.tensor(x, device=frames.device).view(1, 3, 1, 1) for x in (how.mean, how.std))
    pixels = frames.permute(0, 3, 1, 2).float() * how.scale  # (n, 3, H, W)
    return (pixels - mean) / std
