"""InternVL3 and InternVL3.5 in transformers' layout: the checkpoints whose names end in -hf or -HF.

An InternViT tower of square frames, four patches shuffled into one token, a two-layer projector and a Qwen decoder with
one-axis positions. Every frame stands between <img> and </img> and is numbered by a word before it: "Frame1: ".
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from transformers import InternVLForConditionalGeneration

from adatp.decoder import check_decoder
from adatp.families.merging import FRAMES_PER_PASS, merged_ranking
from adatp.flops import TowerShape, tower_flops
from adatp.layout import Slot, one_axis
from adatp.visual import Ranking, Visual
from adatp.weights import Checkpoint, CheckpointError


@dataclass(frozen=True, eq=False)
class InternVL:
    """One loaded checkpoint."""

    hf: Any
    """The transformers model itself, `InternVLForConditionalGeneration`, in evaluation mode."""

    name: ClassVar[str] = "InternVL3 and 3.5 (internvl)"
    system: ClassVar[str | None] = None
    video_text: ClassVar[str | None] = "<video>"
    chat_template: ClassVar[str | None] = None
    can_rank: ClassVar[bool] = True
    deepstack_layers: ClassVar[int] = 0

    @classmethod
    def reads(cls, config: dict[str, Any]) -> bool:
        """OpenGVLab's original layout too, which `load` refuses with the name of the layout that is read."""
        return config.get("model_type") in ("internvl", "internvl_chat")

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> Self:
        if checkpoint.config.get("model_type") == "internvl_chat":
            raise CheckpointError(
                f"{str(checkpoint.folder)!r} is in OpenGVLab's original layout, which needs its own code; "
                f"expected transformers' layout: {_twin(str(checkpoint.folder))}"
            )
        config = checkpoint.transformers_config()
        check_decoder(config.text_config, "qwen2", "qwen3")
        _check_vision(config)
        return cls(checkpoint.build(InternVLForConditionalGeneration, config))

    @property
    def decoder(self) -> Any:
        return self.hf.model.language_model

    @property
    def video_token_id(self) -> int:
        return int(self.hf.config.image_token_id)

    @property
    def frame_size(self) -> tuple[int, int]:
        height, width = self.hf.config.vision_config.image_size
        return int(height), int(width)

    @property
    def merge(self) -> int:
        """s: s x s patches become one token."""
        return round(1 / float(self.hf.config.downsample_ratio))

    @property
    def side(self) -> int:
        """Tokens along a side of a frame."""
        vision = self.hf.config.vision_config
        return int(vision.image_size[0] // vision.patch_size[0] // self.merge)

    @property
    def tokens_per_frame(self) -> int:
        """256."""
        return self.side**2

    @property
    def vector(self) -> Tensor | None:
        return None

    def encode(self, pixels: Tensor, times_s: Sequence[float] | None, ranking: bool) -> Visual:
        height, width = self.frame_size
        if pixels.shape[1:] != (3, height, width):
            raise ValueError(f"expected pixels (n, 3, {height}, {width}), got {tuple(pixels.shape)}")
        return Visual.cat([self._encode(chunk, ranking) for chunk in torch.split(pixels, FRAMES_PER_PASS)])

    def _encode(self, pixels: Tensor, ranking: bool) -> Visual:
        features, ranked = self._tower(pixels, ranking)  # (n, P, D)
        square = features.unflatten(1, (self.side * self.merge, -1))
        shuffled = self.hf.model.pixel_shuffle(square, scale_factor=self.hf.config.downsample_ratio)
        tokens = self.hf.model.multi_modal_projector(shuffled.flatten(1, 2))  # (n, c, d)
        return Visual(tokens, (self.side, self.side), ranking=ranked)

    def _tower(self, pixels: Tensor, ranking: bool) -> tuple[Tensor, Ranking | None]:
        """The patches' features, (n, P, D), class token left out, and what ranks them."""
        tower = self.hf.model.vision_tower
        hidden = tower.embeddings(pixels)  # (n, 1 + P, D)
        *layers, last = tower.encoder.layer
        for layer in layers:
            hidden = layer(hidden)
        ranked = None
        if ranking:
            received, keys = class_attention(last.attention, last.layernorm_before(hidden))
            ranked = merged_ranking(received, keys, self.merge)
        return tower.layernorm(last(hidden))[:, 1:], ranked

    def spell(self, n_steps: int, times_s: Sequence[Sequence[float]] | None) -> list[str | Slot]:
        spelled: list[str | Slot] = ["Frame1: <img>", Slot.STEP]
        for number in range(2, n_steps + 1):
            spelled += [f"</img>\nFrame{number}: <img>", Slot.STEP]
        return [*spelled, "</img>"]

    def positions(
        self, n_rows: int, visual: Tensor, grid: tuple[int, int], times_s: Sequence[Sequence[float]] | None
    ) -> Tensor:
        return one_axis(n_rows)

    def vision_flops(self, n_steps: int, grid: tuple[int, int]) -> float:
        config, merged = self.hf.config, self.merge**2
        vision, d = config.vision_config, config.text_config.hidden_size
        tower = TowerShape(
            vision.num_hidden_layers,
            vision.hidden_size,
            vision.intermediate_size,
            vision.patch_size[0],
            self.tokens_per_frame * merged,
            has_class_token=True,
        )
        projector = 2 * self.tokens_per_frame * (vision.hidden_size * merged * d + d * d)
        return tower_flops(tower, n_steps) + float(n_steps * projector)


def class_attention(attention: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """VisionZip's two inputs from a tower with a class token, from one layer's normed input (METHOD 2.2).

    Returns:
        Attention that the class token pays every patch, mean over heads, (n, P), and the patches' keys averaged over
        heads, (n, P, head size), both float32.
    """
    heads, head_dim = attention.num_heads, attention.head_dim
    query = attention.q_norm(attention.q_proj(x[:, :1])).unflatten(-1, (heads, head_dim)).float()  # (n, 1, H, k)
    key = attention.k_norm(attention.k_proj(x)).unflatten(-1, (heads, head_dim)).float()  # (n, 1 + P, H, k)
    row = torch.einsum("nqhk,nphk->nhp", query, key).mul(attention.scale).softmax(-1)  # (n, H, 1 + P)
    return row.mean(1)[:, 1:], key.mean(2)[:, 1:]


def _check_vision(config: Any) -> None:
    vision = config.vision_config
    if vision.model_type != "internvl_vision":
        raise CheckpointError(f"expected an internvl_vision tower, got {vision.model_type}")
    if config.vision_feature_layer != -1 or config.vision_feature_select_strategy != "default":
        raise CheckpointError(
            "expected vision_feature_layer -1 and strategy default, got "
            f"{config.vision_feature_layer} and {config.vision_feature_select_strategy}"
        )
    sides = [size // patch for size, patch in zip(vision.image_size, vision.patch_size, strict=True)]
    merge = round(1 / config.downsample_ratio)
    if sides[0] != sides[1] or sides[0] % merge or merge * config.downsample_ratio != 1:
        raise CheckpointError(
            "expected a square grid of patches that downsample_ratio divides, got "
            f"{sides[0]} x {sides[1]} and {config.downsample_ratio}"
        )
    if (made := (sides[0] // merge) ** 2) != config.image_seq_length:
        raise CheckpointError(f"expected image_seq_length {made} of this tower, got {config.image_seq_length}")


def _twin(folder: str) -> str:
    """The hub id of the same weights in transformers' layout."""
    if found := re.search(r"InternVL3_5-[\w.]+", folder):
        return f"OpenGVLab/{found[0]}-HF"
    if found := re.search(r"InternVL3-[\w.]+", folder):
        return f"OpenGVLab/{found[0]}-hf"
    return "OpenGVLab/InternVL3-1B-hf, -2B-hf, -8B-hf, -14B-hf, -38B-hf or -78B-hf"
