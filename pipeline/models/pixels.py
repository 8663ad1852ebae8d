"""From uint8 frames to the numbers a vision tower reads, on the tower's device. The torch half of resize.py.

Legend: n frames, H x W pixels.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from pipeline.decoding.resize import Normalisation


def normalise(frames: torch.Tensor, how: Normalisation) -> torch.Tensor:
    """(n, H, W, 3) uint8 -> (n, 3, H, W) float32, where the frames are."""
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"expected uint8 (n, H, W, 3), got {frames.dtype} {tuple(frames.shape)}")
    mean, std = (torch.tensor(x, device=frames.device).view(1, 3, 1, 1) for x in (how.mean, how.std))
    pixels = frames.permute(0, 3, 1, 2).float() * how.scale  # (n, 3, H, W)
    return (pixels - mean) / std


class DeviceFrames:
    """A clip's frames on a device: sent once, as the bytes they are, and normalised there.

    Encoder and Video LLM that read the same pixels share both steps.
    """

    def __init__(self, frames: npt.NDArray[np.uint8], device: str | torch.device) -> None:
        self._frames = torch.from_numpy(frames.copy()).to(device, non_blocking=True)  # (n, H, W, 3)
        self._normalised: dict[Normalisation, torch.Tensor] = {}

    def normalised(self, how: Normalisation, keep: bool = False) -> torch.Tensor:
        """(n, 3, H, W) float32 on the device. `keep` holds it for one more caller, who then has it alone."""
        found = self._normalised.pop(how, None)
        if found is None:
            found = normalise(self._frames, how)
        if keep:
            self._normalised[how] = found
        return found

    def some(self, frames: Sequence[int], how: Normalisation) -> torch.Tensor:
        """(k, 3, H, W) float32: k of the frames."""
        return normalise(self._frames[list(frames)], how)
