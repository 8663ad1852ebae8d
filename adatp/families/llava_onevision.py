"""LLaVA-OneVision in transformers' layout, and LLaVA-Video converted to it (METHOD 3.1 to 3.3).

A SigLIP tower of square frames, a two-layer projector, a Qwen2 decoder with one-axis positions; no text between frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor
from transformers import LlavaOnevisionForConditionalGeneration

from adatp.decoder import check_decoder
from adatp.families.llava_frames import LLAVA_VIDEO, ONEVISION, FrameLayout, encode_frames
from adatp.flops import LLMShape, TowerShape, projector_flops, tower_flops
from adatp.layout import Slot, one_axis
from adatp.prompt import SYSTEM
from adatp.visual import Visual
from adatp.weights import Checkpoint, CheckpointError


@dataclass(frozen=True, eq=False)
class LlavaOnevision:
    """One loaded checkpoint."""

    hf: Any
    """The transformers model itself, `LlavaOnevisionForConditionalGeneration`, in evaluation mode."""
    layout: FrameLayout

    name: ClassVar[str] = "LLaVA-OneVision (llava_onevision)"
    system: ClassVar[str | None] = SYSTEM
    video_text: ClassVar[str | None] = None
    chat_template: ClassVar[str | None] = None
    can_rank: ClassVar[bool] = True
    deepstack_layers: ClassVar[int] = 0

    @classmethod
    def reads(cls, config: dict[str, Any]) -> bool:
        return config.get("model_type") == "llava_onevision"

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> Self:
        config = checkpoint.transformers_config()
        check_decoder(config.text_config, "qwen2")
        if (tower := config.vision_config.model_type) != "siglip_vision_model":
            raise CheckpointError(f"expected a siglip_vision_model tower, got {tower}")
        if not isinstance(config.vision_feature_layer, int) or config.vision_feature_select_strategy != "full":
            raise CheckpointError(
                "expected one vision_feature_layer and strategy full, got "
                f"{config.vision_feature_layer} and {config.vision_feature_select_strategy}"
            )
        return cls(checkpoint.build(LlavaOnevisionForConditionalGeneration, config), layout_of(checkpoint.config))

    @property
    def decoder(self) -> Any:
        return self.hf.model.language_model

    @property
    def video_token_id(self) -> int:
        return int(self.hf.config.video_token_id)

    @property
    def frame_size(self) -> tuple[int, int]:
        side = int(self.hf.config.vision_config.image_size)
        return side, side

    @property
    def tokens_per_frame(self) -> int:
        """196 for OneVision, 182 (newlines included) for LLaVA-Video."""
        vision = self.hf.config.vision_config
        return self.layout.tokens_per_frame(vision.image_size // vision.patch_size)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of a frame's patch tokens."""
        vision = self.hf.config.vision_config
        side = self.layout.side(vision.image_size // vision.patch_size)
        return side, side

    @property
    def vector(self) -> Tensor | None:
        newline: Tensor = self.hf.model.image_newline
        return newline if self.layout.newline == "one_token" else None

    @property
    def tower_layers(self) -> int:
        """Tower layers that run: up to the one whose output is the feature."""
        vision, chosen = self.hf.config.vision_config, self.hf.config.vision_feature_layer
        n = int(vision.num_hidden_layers)
        return n + 1 + chosen if chosen < 0 else int(chosen)

    @property
    def tower_shape(self) -> TowerShape:
        return TowerShape.of(self.hf.config.vision_config, self.tower_layers)

    def encode(self, pixels: Tensor, times_s: Sequence[float] | None, ranking: bool) -> Visual:
        height, width = self.frame_size
        if pixels.shape[1:] != (3, height, width):
            raise ValueError(f"expected pixels (n, 3, {height}, {width}), got {tuple(pixels.shape)}")
        return encode_frames(
            self.hf.model.vision_tower,
            self.hf.model.multi_modal_projector,
            self.hf.model.image_newline,
            self.layout,
            self.tower_layers,
            pixels,
            ranking,
        )

    def spell(self, n_steps: int, times_s: Sequence[Sequence[float]] | None) -> list[str | Slot]:
        steps: list[str | Slot] = [Slot.STEP] * n_steps
        return steps if self.vector is None else [*steps, Slot.VECTOR]

    def positions(
        self, n_rows: int, visual: Tensor, grid: tuple[int, int], times_s: Sequence[Sequence[float]] | None
    ) -> Tensor:
        return one_axis(n_rows)

    def vision_flops(self, n_steps: int, grid: tuple[int, int]) -> float:
        tower = self.tower_shape
        return tower_flops(tower, n_steps) + projector_flops(tower, LLMShape.of(self.hf.config.text_config), n_steps)


def layout_of(config: dict[str, Any]) -> FrameLayout:
    """`mm_newline_position` "grid" is LLaVA-Video: averaged, as it is evaluated, whatever mm_spatial_pool_mode says."""
    if config.get("mm_newline_position") == "grid":
        return LLAVA_VIDEO
    mode = config.get("mm_spatial_pool_mode")
    return ONEVISION if mode is None else FrameLayout(mode, "one_token")
