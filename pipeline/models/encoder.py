"""The dual encoder (SigLIP, SigLIP2 or CLIP): frames and texts into one space. The only file that loads transformers.

Legend: n frames, q texts, D embedding width, H x W the size the vision tower reads.
"""

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, CLIPModel, SiglipModel
from transformers.utils import logging as transformers_logging

from adatp import CheckpointError, TowerShape, tower_flops
from pipeline.models.memory import halving

# Loading takes a second and needs no bar; the configuration warnings concern generation, which this model never does.
transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()

_CLASSES = {"siglip": SiglipModel, "clip": CLIPModel}
_PACKAGES = {"SiglipTokenizer": ("sentencepiece", "google.protobuf")}
"""What a published tokenizer class needs. Without it transformers takes another class and reads other tokens."""


class Encoder:
    """One encoder, loaded once. Vectors come out unit length and in fp32, whatever the weights' dtype."""

    def __init__(
        self,
        path: Path,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        tensors: Mapping[str, Tensor] | None = None,
    ) -> None:
        """`tensors` stand in for the folder's weight files, as in `adatp.load`. Raises adatp.CheckpointError."""
        self._model: Any = _load_model(path, dtype, tensors)
        self._model.eval().to(device)
        self._device, self._dtype, self._is_clip = device, dtype, self._model.config.model_type == "clip"
        text = self._model.config.text_config
        self._tokenizer, self._lowers = _load_tokenizer(path, int(text.vocab_size))
        self.dim = int(
            self._model.config.projection_dim if self._is_clip else self._model.config.vision_config.hidden_size
        )
        self._max_tokens = int(text.max_position_embeddings)
        self.flops_per_frame = tower_flops(_tower_shape(self._model.config.vision_config, not self._is_clip), 1)

    @torch.inference_mode()
    def images(self, pixels: Tensor, batch: int = 32) -> Tensor:
        """Normalised frames (n, 3, H, W) -> unit vectors (n, D). A frame the encoder cannot make sense of gives NaN."""
        parts = [self._features(part.to(self._device, self._dtype)) for part in torch.split(pixels, batch)]
        return _unit(torch.cat(parts))  # (n, D)

    def _features(self, pixels: Tensor) -> Tensor:
        def encode(first: int, last: int) -> Tensor:
            return _pooled(self._model.get_image_features(pixel_values=pixels[first:last]))

        return halving(encode, torch.cat, 0, len(pixels))

    @property
    def device(self) -> str:
        """Where frames should lie to be encoded."""
        return self._device

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Texts -> unit vectors (q, D). A text longer than the tower takes is cut; see `is_cut`."""
        # SigLIP was trained on texts padded to full length and pools the last place; CLIP pools at the end token.
        tokens = self._tokenizer(
            [self._as_trained(text) for text in texts],
            padding=True if self._is_clip else "max_length",
            truncation=True,
            max_length=self._max_tokens,
            return_tensors="pt",
        ).to(self._device)
        inputs = dict(tokens) if self._is_clip else {"input_ids": tokens["input_ids"]}
        return _unit(_pooled(self._model.get_text_features(**inputs)))  # (q, D)

    def is_cut(self, text: str) -> bool:
        """Whether `text` has more tokens than the text tower reads."""
        return len(self._tokenizer(self._as_trained(text))["input_ids"]) > self._max_tokens

    def _as_trained(self, text: str) -> str:
        """SigLIP2 learned from lower-case texts; the Gemma tokenizer that it ships does not see to that itself."""
        return text.lower() if self._lowers else text


def _load_model(path: Path, dtype: torch.dtype, tensors: Mapping[str, Tensor] | None) -> Any:
    config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    if config.model_type not in _CLASSES:
        raise CheckpointError(
            f"expected model_type {' or '.join(_CLASSES)} in {str(path)!r}, got {config.model_type!r}"
        )
    model, report = _CLASSES[config.model_type].from_pretrained(
        path if tensors is None else None,
        config=config,
        state_dict=None if tensors is None else dict(tensors),
        dtype=dtype,
        local_files_only=True,
        use_safetensors=True,
        attn_implementation="sdpa",
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they reach the report with the other keys, instead of a bare raise
    )
    kinds = {"missing": "missing_keys", "surplus": "unexpected_keys", "wrongly shaped": "mismatched_keys"}
    wrong = {kind: sorted(map(str, report[key])) for kind, key in kinds.items() if report[key]}
    if wrong:
        listing = "; ".join(f"{len(keys)} {kind}: {', '.join(keys[:4])}" for kind, keys in wrong.items())
        raise CheckpointError(f"its weights do not fit its config.json: {listing}")
    return model


def _load_tokenizer(path: Path, n_embeddings: int) -> tuple[Any, bool]:
    """The tokenizer, and whether texts are put in lower case for it."""
    config, declared = {}, path / "tokenizer_config.json"
    if declared.is_file():
        config = json.loads(declared.read_text())
    kind = str(config.get("tokenizer_class", "")).removesuffix("Fast")
    for package in _PACKAGES.get(kind, ()):
        try:
            importlib.import_module(package)
        except ImportError as error:
            name = package.replace("google.", "")
            raise CheckpointError(
                f"its {kind} needs the package {name}, which is missing: run `pip install {name}`"
            ) from error
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if not 0 <= largest < n_embeddings:
        raise CheckpointError(
            f"its tokenizer ({type(tokenizer).__name__}) has token ids up to {largest}, but its text tower embeds "
            f"{n_embeddings}: the tokenizer is of another model"
        )
    return tokenizer, kind.startswith("Gemma") and bool(config.get("do_lower_case", True))


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
