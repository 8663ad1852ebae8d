"""Qwen3-VL: the time of every step is written before it, and the tower's middle layers reach into the decoder.

The decoder is Qwen3's, queries and keys normed per head, with interleaved M-RoPE. Features of the tower's layers
`deepstack_visual_indexes` are added to the output of as many first decoder layers, at the visual tokens.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

from torch import Tensor
from transformers import Qwen3VLForConditionalGeneration

from adatp.decoder import check_decoder
from adatp.families.qwen_vl import QwenVL, mrope_positions, need_times
from adatp.layout import Slot
from adatp.weights import Checkpoint, CheckpointError


class Qwen3VL(QwenVL):
    """One loaded checkpoint."""

    name: ClassVar[str] = "Qwen3-VL (qwen3_vl)"

    @property
    def deepstack_layers(self) -> int:
        return len(self.vision.deepstack_visual_indexes)

    @classmethod
    def reads(cls, config: dict[str, Any]) -> bool:
        return config.get("model_type") == "qwen3_vl"

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> Self:
        config = checkpoint.transformers_config()
        check_decoder(config.text_config, "qwen3_vl_text")
        if not config.text_config.rope_parameters.get("mrope_interleaved", True):
            raise CheckpointError("expected mrope_interleaved=true, the only order of axes that transformers computes")
        return cls(checkpoint.build(Qwen3VLForConditionalGeneration, config))

    def spell(self, n_steps: int, times_s: Sequence[Sequence[float]] | None) -> list[str | Slot]:
        """A step's time is the mean of its first and its last frame's."""
        spelled: list[str | Slot] = []
        for of_step in need_times(times_s):
            seconds = (of_step[0] + of_step[-1]) / 2
            spelled += [f"<{seconds:.1f} seconds><|vision_start|>", Slot.STEP, "<|vision_end|>"]
        return spelled

    def positions(
        self, n_rows: int, visual: Tensor, grid: tuple[int, int], times_s: Sequence[Sequence[float]] | None
    ) -> Tensor:
        return mrope_positions(n_rows, [(step[None], [0]) for step in visual], grid)

    def vision_flops(self, n_steps: int, grid: tuple[int, int]) -> float:
        n_patches = grid[0] * grid[1] * int(self.vision.spatial_merge_size) ** 2
        tower = self._tower_flops(n_patches, 2, [n_patches**2] * int(self.vision.depth))
        return n_steps * (tower + (1 + self.deepstack_layers) * self._merger_flops(n_patches))
