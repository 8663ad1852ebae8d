"""The dual encoder (SigLIP, SigLIP2 or CLIP): frames and texts into one space. The only file that loads transformers.

Legend: n frames, q texts, D embedding width, H x W the size the vision tower reads.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from adatp import TowerShape, tower_flops

# Loading takes a second and needs no bar; the configuration warnings concern generation, which this model never does.
transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


class Encoder:
    """One encoder, loaded once. Vectors come out unit length and in fp32, whatever the weights' dtype."""

    def __init__(self, path: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        family = AutoConfig.from_pretrained(path, trust_remote_code=False).model_type
        self._model: Any = AutoModel.from_pretrained(
            path, dtype=dtype, use_safetensors=True, trust_remote_code=False, attn_implementation="sdpa"
        )
        self._model.eval().to(device)
        self._tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        self._device, self._dtype, self._is_clip = device, dtype, family == "clip"
        text = self._model.config.text_config
        self.dim = int(
            self._model.config.projection_dim if self._is_clip else self._model.config.vision_config.hidden_size
        )
        self._max_tokens = int(text.max_position_embeddings)
        self.flops_per_frame = tower_flops(_tower_shape(self._model.config.vision_config, not self._is_clip), 1)

    @torch.inference_mode()
    def images(self, pixels: Tensor, batch: int = 32) -> Tensor:
        """Normalised frames (n, 3, H, W) -> unit vectors (n, D)."""
        parts = [
            _pooled(self._model.get_image_features(pixel_values=part.to(self._device, self._dtype)))
            for part in torch.split(pixels, batch)
        ]
        return _unit(torch.cat(parts))  # (n, D)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Texts -> unit vectors (q, D). A text longer than the tower takes is cut; see `is_cut`."""
        # SigLIP was trained on texts padded to full length and pools the last place; CLIP pools at the end token.
        tokens = self._tokenizer(
            list(texts),
            padding=True if self._is_clip else "max_length",
            truncation=True,
            max_length=self._max_tokens,
            return_tensors="pt",
        ).to(self._device)
        inputs = dict(tokens) if self._is_clip else {"input_ids": tokens["input_ids"]}
        return _unit(_pooled(self._model.get_text_features(**inputs)))  # (q, D)

    def is_cut(self, text: str) -> bool:
        """Whether `text` has more tokens than the text tower reads."""
        return len(self._tokenizer(text)["input_ids"]) > self._max_tokens


def _tower_shape(config: Any, has_head: bool) -> TowerShape:
    """SigLIP pools by an attention head, CLIP reads its class token."""
    n_patches = (config.image_size // config.patch_size) ** 2
    return TowerShape(
        config.num_hidden_layers, config.hidden_size, config.intermediate_size, config.patch_size, n_patches, has_head
    )


def _pooled(output: object) -> Tensor:
    """transformers 5 hands back either the pooled tensor or an output object that holds it."""
    return output if isinstance(output, Tensor) else output.pooler_output  # type: ignore[attr-defined]  # untyped upstream


def _unit(vectors: Tensor) -> Tensor:
    return nn.functional.normalize(vectors.float(), dim=-1).cpu()
