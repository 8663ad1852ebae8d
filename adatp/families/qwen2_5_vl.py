"""Qwen2.5-VL: a tower of windows with a few layers of full attention, and time in the positions alone.

The decoder is Qwen2's with M-RoPE; a step's time is counted in `tokens_per_second` positions a second.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from adatp.decoder import check_decoder
from adatp.families.qwen_vl import QwenVL, mrope_positions, need_times
from adatp.layout import Slot
from adatp.weights import Checkpoint

_ROUNDING = 1e-4  # of a position: times such as 2/3 s must not fall below the position they stand for


class Qwen25VL(QwenVL):
    """One loaded checkpoint."""

    name: ClassVar[str] = "Qwen2.5-VL (qwen2_5_vl)"

    @property
    def deepstack_layers(self) -> int:
        return 0

    @classmethod
    def reads(cls, config: dict[str, Any]) -> bool:
        return config.get("model_type") == "qwen2_5_vl"

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> Self:
        config = checkpoint.transformers_config()
        check_decoder(config.text_config, "qwen2_5_vl_text")
        return cls(checkpoint.build(Qwen2_5_VLForConditionalGeneration, config))

    def spell(self, n_steps: int, times_s: Sequence[Sequence[float]] | None) -> list[str | Slot]:
        return ["<|vision_start|>", *[Slot.STEP] * n_steps, "<|vision_end|>"]

    def positions(
        self, n_rows: int, visual: Tensor, grid: tuple[int, int], times_s: Sequence[Sequence[float]] | None
    ) -> Tensor:
        """Absolute time: a step stands as far from the first as its first frame, in seconds, says."""
        begins = [of_step[0] for of_step in need_times(times_s)]
        per_second = float(self.vision.tokens_per_second)
        times = [int((begin - begins[0]) * per_second + _ROUNDING) for begin in begins]
        return mrope_positions(n_rows, [(visual, times)], grid)

    def vision_flops(self, n_steps: int, grid: tuple[int, int]) -> float:
        merge = int(self.vision.spatial_merge_size)
        side = int(self.vision.window_size) // merge // int(self.vision.patch_size)  # of a window, in tokens
        n_patches = grid[0] * grid[1] * merge**2
        windowed = sum(
            (height * width * merge**2) ** 2 for height in _pieces(grid[0], side) for width in _pieces(grid[1], side)
        )
        full = set(self.vision.fullatt_block_indexes)
        pairs = [n_patches**2 if layer in full else windowed for layer in range(self.vision.depth)]
        return n_steps * (self._tower_flops(n_patches, 3, pairs) + self._merger_flops(n_patches))


def _pieces(length: int, side: int) -> list[int]:
    """`length` cut into windows of `side`."""
    return [min(side, length - begin) for begin in range(0, length, side)]
