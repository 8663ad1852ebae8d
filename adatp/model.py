"""A Video LLM: a loaded checkpoint of one family, its prompt and its stop tokens.

Legend: n frames, H x W pixels, c visual tokens per frame, d hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adatp.families.family import ModelFamily
from adatp.flops import LLMShape
from adatp.layout import Layout, rows_of
from adatp.prompt import Prompt
from adatp.visual import Visual


@dataclass(frozen=True, eq=False)
class VideoLLM:
    """What `load` returns. Nothing of a request is ever stored here."""

    family: ModelFamily
    prompt: Prompt
    stop_token_ids: frozenset[int]

    @property
    def hf(self) -> Any:
        """The transformers model itself, in evaluation mode."""
        return self.family.hf

    @property
    def decoder(self) -> Any:
        return self.family.decoder

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
        return int(self.decoder.config.hidden_size)

    @property
    def llm_shape(self) -> LLMShape:
        return LLMShape.of(self.decoder.config)

    @property
    def frame_size(self) -> tuple[int, int]:
        """(H, W) in pixels the tower wants. ValueError where it follows the picture's own shape."""
        size = self.family.frame_size
        if size is None:
            raise ValueError(f"{self.family.name} has no fixed frame size: it keeps the picture's shape")
        return size

    @property
    def tokens_per_frame(self) -> int:
        """c. ValueError where it follows the picture's size: ask the `Visual`."""
        c = self.family.tokens_per_frame
        if c is None:
            raise ValueError(f"{self.family.name} has no fixed number of tokens per frame: it follows the frame's size")
        return c

    @torch.inference_mode()
    def encode(self, pixels: Tensor, times_s: Sequence[float] | None = None, *, visionzip: bool = False) -> Visual:
        """Encode a clip's frames once, for any number of questions.

        Args:
            pixels: frames resized and normalised as the tower was trained, (n, 3, H, W), floating.
            times_s: seconds of each frame; needed where a family tells the model when a frame was.
            visionzip: also compute what VisionZip ranks by, which costs an attention map per frame.
        """
        if pixels.ndim != 4 or pixels.shape[1] != 3 or len(pixels) == 0:
            raise ValueError(f"expected pixels (n, 3, H, W), got {tuple(pixels.shape)}")
        if not pixels.is_floating_point():
            raise ValueError(f"expected normalised floating pixels, got {pixels.dtype}")
        if times_s is not None and len(times_s) != len(pixels):
            raise ValueError(f"expected times_s of {len(pixels)} frames, got {len(times_s)}")
        if visionzip and not self.family.can_rank:
            raise ValueError(f"visionzip ranks by a SigLIP tower's attention, which {self.family.name} does not have")
        return self.family.encode(pixels.to(self.device, self.dtype), times_s, visionzip)

    def lay_out(
        self, text: str, n_steps: int, visual: Visual, times_s: Sequence[Sequence[float]] | None = None
    ) -> Layout:
        """Where everything of the unpruned prompt stands; `visual` may hold some of the `n_steps` steps alone."""
        tokens, n_after = self.prompt.tokens(text, self.family.spell(n_steps, times_s))
        c = visual.tokens_per_frame
        ids, rows, vectors = rows_of(tokens, c, self.prompt.video_token_id)
        of_steps = torch.tensor(rows).view(n_steps, c)
        positions = self.family.positions(len(ids), of_steps, visual.grid, times_s)
        return Layout(tuple(ids), of_steps.flatten(), tuple(vectors), positions, n_after)

    def prompt_ids(self, text: str, visual: Visual) -> list[int]:
        """Token ids of the whole unpruned prompt, as transformers' own processor would make them."""
        return list(self.lay_out(text, visual.n_steps, visual, visual.times_s).ids)
