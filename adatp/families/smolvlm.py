"""SmolVLM2: a SigLIP tower of square frames, s x s patches shuffled into one token, one linear layer, a Llama decoder.

There is no video token. Each frame is an image of its own, after the moment it is from ("Frame from 00:04:"), and the
prompt begins with how many frames follow and how long the video is. The words are transformers' own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from transformers import SmolVLMForConditionalGeneration
from transformers.models.smolvlm.processing_smolvlm import (
    DEFAULT_CHAT_TEMPLATE,
    DEFAULT_MEDIA_OUTTRO,
    DEFAULT_VIDEO_INTRO,
    FRAME_TIMESTAMP_MESSAGE,
)

from adatp.decoder import check_decoder
from adatp.families.llava_frames import patch_attention
from adatp.families.merging import FRAMES_PER_PASS, merged_ranking
from adatp.flops import TowerShape, tower_flops
from adatp.layout import Slot, one_axis
from adatp.visual import Ranking, Visual
from adatp.weights import Checkpoint, CheckpointError

_BEFORE, _AFTER = "<fake_token_around_image><global-img>", "<fake_token_around_image>"
_SMALL = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
_SMALL += " seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"


@dataclass(frozen=True, eq=False)
class SmolVLM:
    """One loaded checkpoint."""

    hf: Any
    """The transformers model itself, `SmolVLMForConditionalGeneration`, in evaluation mode."""

    name: ClassVar[str] = "SmolVLM2 (smolvlm)"
    system: ClassVar[str | None] = None
    video_text: ClassVar[str | None] = "<video>"
    chat_template: ClassVar[str | None] = DEFAULT_CHAT_TEMPLATE  # the files' own knows images alone
    can_rank: ClassVar[bool] = True
    deepstack_layers: ClassVar[int] = 0

    @classmethod
    def reads(cls, config: dict[str, Any]) -> bool:
        return config.get("model_type") == "smolvlm"

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> Self:
        config = checkpoint.transformers_config()
        check_decoder(config.text_config, "llama")
        _check_vision(config)
        return cls(checkpoint.build(SmolVLMForConditionalGeneration, config))

    @property
    def decoder(self) -> Any:
        return self.hf.model.text_model

    @property
    def video_token_id(self) -> int:
        return int(self.hf.config.image_token_id)

    @property
    def frame_size(self) -> tuple[int, int]:
        side = int(self.hf.config.vision_config.image_size)
        return side, side

    @property
    def side(self) -> int:
        """Tokens along a side of a frame."""
        vision = self.hf.config.vision_config
        return int(vision.image_size // vision.patch_size // self.hf.config.scale_factor)

    @property
    def tokens_per_frame(self) -> int:
        """64 for 256M and 500M, 81 for 2.2B."""
        return self.side**2

    @property
    def vector(self) -> Tensor | None:
        return None

    def encode(self, pixels: Tensor, times_s: Sequence[float] | None, ranking: bool) -> Visual:
        height, width = self.frame_size
        if pixels.shape[1:] != (3, height, width):
            raise ValueError(f"expected pixels (n, 3, {height}, {width}), got {tuple(pixels.shape)}")
        if times_s is None:
            raise ValueError("expected the seconds of every frame, which SmolVLM2's prompt names, got none")
        visual = Visual.cat([self._encode(chunk, ranking) for chunk in torch.split(pixels, FRAMES_PER_PASS)])
        return replace(visual, times_s=tuple((time,) for time in times_s))

    def _encode(self, pixels: Tensor, ranking: bool) -> Visual:
        features, ranked = self._tower(pixels, ranking)  # (n, P, D)
        return Visual(self.hf.model.connector(features), (self.side, self.side), ranking=ranked)

    def _tower(self, pixels: Tensor, ranking: bool) -> tuple[Tensor, Ranking | None]:
        """The patches' features, (n, P, D), and what ranks them."""
        tower = self.hf.model.vision_model
        height, width = (side // tower.patch_size for side in pixels.shape[2:])
        whole = torch.ones(len(pixels), height, width, dtype=torch.bool, device=pixels.device)  # no padding
        hidden = tower.embeddings(pixel_values=pixels, patch_attention_mask=whole)
        *layers, last = tower.encoder.layers
        for layer in layers:
            hidden = layer(hidden, None)
        ranked = None
        if ranking:
            received, keys = patch_attention(last.self_attn, last.layer_norm1(hidden))
            ranked = merged_ranking(received, keys, self.hf.config.scale_factor)
        return tower.post_layernorm(last(hidden, None)), ranked

    def spell(self, n_steps: int, times_s: Sequence[Sequence[float]] | None) -> list[str | Slot]:
        if times_s is None:
            raise ValueError("SmolVLM2's prompt names the seconds of every frame: expected all frames encoded")
        times = [time for step in times_s for time in step]
        length = timedelta(seconds=int(times[-1]))
        text = DEFAULT_VIDEO_INTRO.format(frame_count=in_words(n_steps), video_duration=length)
        spelled: list[str | Slot] = []
        for time in times:
            clock = f"{int(time // 60):02d}:{int(time % 60):02d}"
            spelled += [text + FRAME_TIMESTAMP_MESSAGE.format(timestamp=clock) + _BEFORE, Slot.STEP]
            text = _AFTER
        return [*spelled, text + DEFAULT_MEDIA_OUTTRO]

    def positions(
        self, n_rows: int, visual: Tensor, grid: tuple[int, int], times_s: Sequence[Sequence[float]] | None
    ) -> Tensor:
        return one_axis(n_rows)

    def vision_flops(self, n_steps: int, grid: tuple[int, int]) -> float:
        config, merged = self.hf.config, self.hf.config.scale_factor**2
        vision = config.vision_config
        tower = TowerShape(
            vision.num_hidden_layers,
            vision.hidden_size,
            vision.intermediate_size,
            vision.patch_size,
            self.tokens_per_frame * merged,
        )
        projector = 2 * self.tokens_per_frame * vision.hidden_size * merged * config.text_config.hidden_size
        return tower_flops(tower, n_steps) + float(n_steps * projector)


def in_words(n: int) -> str:
    """A count in English words, as the training prompts had it: 1..999, "one hundred and seven"."""
    if not 1 <= n <= 999:
        raise ValueError(f"expected 1 to 999 frames, got {n}")
    if n >= 100:
        rest = f" and {in_words(n % 100)}" if n % 100 else ""
        return f"{_SMALL.split()[n // 100]} hundred{rest}"
    if n < 20:
        return _SMALL.split()[n]
    tens, ones = divmod(n, 10)
    return _TENS.split()[tens - 2] + (f"-{_SMALL.split()[ones]}" if ones else "")


def _check_vision(config: Any) -> None:
    vision, text = config.vision_config, config.text_config
    if vision.model_type != "smolvlm_vision":
        raise CheckpointError(f"expected a smolvlm_vision tower, got {vision.model_type}")
    for key in ("qk_layer_norms", "use_resampler", "rope_interleaved"):
        if getattr(text, key, False):
            raise CheckpointError(f"expected {key} false, which transformers' class does not heed, got true")
    grid = vision.image_size // vision.patch_size
    if grid % config.scale_factor:
        raise CheckpointError(f"expected a scale_factor that divides {grid} patches a side, got {config.scale_factor}")
