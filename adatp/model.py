"""A Video LLM: SigLIP tower, projector and Qwen2 decoder of an unmodified transformers model, and its prompt.

Legend: n frames, H x W pixels, c visual tokens per frame, d hidden size.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adatp.flops import LLMShape, TowerShape
from adatp.prompt import Prompt, visual_span
from adatp.vision import FrameLayout, Visual, encode_frames


@dataclass(frozen=True, eq=False)
class VideoLLM:
    """What `load` returns. Nothing of a request is ever stored here."""

    hf: Any
    """The transformers model itself, `LlavaOnevisionForConditionalGeneration`, in evaluation mode."""
    layout: FrameLayout
    prompt: Prompt
    stop_token_ids: frozenset[int]

    @property
    def decoder(self) -> Any:
        return self.hf.model.language_model

    @property
    def device(self) -> torch.device:
        device: torch.device = self.hf.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.hf.dtype
        return dtype

    @property
    def n_layers(self) -> int:
        """Decoder layers, N."""
        return len(self.decoder.layers)

    @property
    def hidden_size(self) -> int:
        return int(self.hf.config.text_config.hidden_size)

    @property
    def frame_size(self) -> tuple[int, int]:
        """(H, W) in pixels the tower wants."""
        side = int(self.hf.config.vision_config.image_size)
        return side, side

    @property
    def tokens_per_frame(self) -> int:
        """c: 196 for OneVision, 182 (newlines included) for LLaVA-Video."""
        vision = self.hf.config.vision_config
        return self.layout.tokens_per_frame(vision.image_size // vision.patch_size)

    @property
    def trailing_newline(self) -> Tensor | None:
        """The learned vector after all frames, (d,); None where rows carry their own."""
        newline: Tensor = self.hf.model.image_newline
        return newline if self.layout.newline == "one_token" else None

    @property
    def tower_layers(self) -> int:
        """Tower layers that run: up to the one whose output is the feature."""
        vision, chosen = self.hf.config.vision_config, self.hf.config.vision_feature_layer
        n = int(vision.num_hidden_layers)
        return n + 1 + chosen if chosen < 0 else int(chosen)

    @property
    def llm_shape(self) -> LLMShape:
        return LLMShape.of(self.hf.config.text_config)

    @property
    def tower_shape(self) -> TowerShape:
        return TowerShape.of(self.hf.config.vision_config, self.tower_layers)

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Visual:
        """Encode a clip's frames once, for any number of questions.

        Args:
            pixels: frames resized to `frame_size` and normalised as the tower was trained, (n, 3, H, W), floating.
        """
        if pixels.ndim != 4 or pixels.shape[1:] != (3, *self.frame_size) or len(pixels) == 0:
            raise ValueError(f"expected pixels (n, 3, {self.frame_size[0]}, {self.frame_size[1]}), got {pixels.shape}")
        if not pixels.is_floating_point():
            raise ValueError(f"expected normalised floating pixels, got {pixels.dtype}")
        return encode_frames(
            self.hf.model.vision_tower,
            self.hf.model.multi_modal_projector,
            self.hf.model.image_newline,
            self.layout,
            self.tower_layers,
            pixels.to(self.device, self.dtype),
        )

    def prompt_ids(self, text: str, n_frames: int) -> list[int]:
        """Token ids of the whole unpruned prompt, one placeholder per visual token (and one for a trailing newline).

        These are the ids transformers' own processor would make, so the model can be run on them directly.
        """
        ids = self.prompt.ids(text)
        n_visual = n_frames * self.tokens_per_frame
        at = visual_span(ids, self.prompt.video_token_id, 1).start
        run = n_visual + (self.trailing_newline is not None)
        return ids[:at] + [self.prompt.video_token_id] * run + ids[at + 1 :]
