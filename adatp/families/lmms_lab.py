"""LLaVA-OneVision and LLaVA-Video in lmms-lab's original layout: the same model under other names (METHOD 3.1 to 3.3).

It ends in the same unmodified transformers class. Every number of config.json is carried into it, or refused by name.
"""

import json
import re
from typing import Any, ClassVar, Self

from torch import Tensor
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, Qwen2Config, SiglipVisionConfig

from adatp.decoder import check_decoder
from adatp.families.llava_onevision import LlavaOnevision, layout_of
from adatp.prompt import NO_VIDEO_TOKEN
from adatp.weights import Checkpoint, CheckpointError

_TEXT = frozenset(
    {  # keys of config.json that are carried into the Qwen2 configuration
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "hidden_act",
        "max_position_embeddings",
        "rms_norm_eps",
        "rope_theta",
        "rope_scaling",
        "rope_parameters",
        "use_sliding_window",
        "sliding_window",
        "max_window_layers",
        "layer_types",
        "attention_dropout",
        "initializer_range",
        "use_cache",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
    }
)
_ONLY: dict[str, tuple[Any, ...]] = {  # settings with a single meaning here; null or absent stands for it as well
    "mm_projector_type": ("mlp2x_gelu",),
    "mm_resampler_type": (),
    "mm_resampler_location": ("before",),
    "mm_pooling_position": ("before",),
    "mm_spatial_pool_stride": (2,),
    "mm_spatial_pool_mode": ("bilinear", "average"),
    "mm_newline_position": ("one_token", "grid"),
    "mm_vision_select_layer": (-2,),  # the files hold the tower up to there, 26 of 27 layers
    "mm_vision_select_feature": ("patch",),
    "mm_use_im_start_end": (False,),
    "mm_use_im_patch_token": (False,),
    "use_mm_proj": (True,),
    "add_faster_video": (False,),
}
_ELSEWHERE = frozenset(
    {  # read elsewhere, or about training, still images, sampling or the prompt
        "_name_or_path",
        "architectures",
        "model_type",
        "torch_dtype",
        "dtype",
        "transformers_version",
        "auto_map",
        "vocab_size",
        "tie_word_embeddings",
        "vision_config",
        "mm_hidden_size",
        "mm_vision_tower",
        "vision_tower_pretrained",
        "mm_projector_lr",
        "mm_vision_tower_lr",
        "mm_tunable_parts",
        "mm_patch_merge_type",
        "tune_mm_mlp_adapter",
        "freeze_mm_mlp_adapter",
        "unfreeze_mm_vision_tower",
        "use_pos_skipping",
        "pos_skipping_range",
        "image_aspect_ratio",
        "image_crop_resolution",
        "image_grid_pinpoints",
        "image_split_resolution",
        "image_token_index",
        "tokenizer_model_max_length",
        "tokenizer_padding_side",
        "faster_token_stride",
        "force_sample",
        "add_time_instruction",
    }
)
_SO400M = {"image_size": 384, "patch_size": 14, "head_dim": 72}  # google/siglip-so400m-patch14-384, named by lmms-lab
_KEYS = (  # lmms-lab name -> transformers module path
    (r"^model\.vision_tower\.vision_tower\.(vision_model\.)?", "model.vision_tower."),
    (r"^model\.mm_projector\.0\.", "model.multi_modal_projector.linear_1."),
    (r"^model\.mm_projector\.2\.", "model.multi_modal_projector.linear_2."),
    (r"^model\.image_newline$", "model.image_newline"),
    (r"^lm_head\.", "lm_head."),
    (r"^model\.(?=embed_tokens\.|layers\.|norm\.)", "model.language_model."),
)


class LmmsLab(LlavaOnevision):
    """LLaVA-OneVision or LLaVA-Video: `mm_newline_position` says which."""

    name: ClassVar[str] = "LLaVA-OneVision and LLaVA-Video as lmms-lab publishes them (mm_vision_tower)"

    @classmethod
    def reads(cls, config: dict[str, Any]) -> bool:
        return "mm_vision_tower" in config

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> Self:
        raw = checkpoint.config
        renamed = {_transformers_name(name): tensor for name, tensor in checkpoint.read().items()}
        config = LlavaOnevisionConfig(
            vision_config=_vision_config(checkpoint, renamed),
            text_config=_text_config(raw, renamed),
            # the published 0.5B has no lm_head and says "tie_word_embeddings": false
            tie_word_embeddings=bool(raw.get("tie_word_embeddings")) or "lm_head.weight" not in renamed,
            vision_feature_layer=-1,
            projector_hidden_act="gelu",
        )
        check_decoder(config.text_config, "qwen2")
        hf = checkpoint.build(LlavaOnevisionForConditionalGeneration, config, renamed)
        return cls(hf, layout_of(raw))

    @property
    def video_token_id(self) -> int:
        return NO_VIDEO_TOKEN


def _transformers_name(name: str) -> str:
    for pattern, place in _KEYS:
        if re.match(pattern, name):
            return re.sub(pattern, place, name)
    raise CheckpointError(f"surplus key {name!r}: no place for it in a LLaVA-OneVision class model")


def _text_config(raw: dict[str, Any], renamed: dict[str, Tensor]) -> Qwen2Config:
    """The decoder's numbers, every one carried; what this library would have to ignore is refused by name."""
    for key, allowed in _ONLY.items():
        if raw.get(key) is not None and raw[key] not in allowed:
            raise CheckpointError(f"config.json: expected {key} {_either(allowed)}, got {raw[key]!r}")
    known = _TEXT | _ONLY.keys() | _ELSEWHERE
    if unknown := sorted(key for key, value in raw.items() if key not in known and value is not None):
        raise CheckpointError(f"config.json: unknown settings {', '.join(unknown)}; they may change the model's output")
    text = {key: value for key, value in raw.items() if key in _TEXT}
    if text.get("rope_scaling") is None:
        text.pop("rope_scaling", None)
    return Qwen2Config(**text, vocab_size=len(renamed["model.language_model.embed_tokens.weight"]))


def _either(allowed: tuple[Any, ...]) -> str:
    return " or ".join([*map(repr, allowed), "null"])


def _vision_config(checkpoint: Checkpoint, renamed: dict[str, Tensor]) -> SiglipVisionConfig:
    """The tower's shape, read off its tensors; image size and heads from a nearby configuration or SigLIP so400m's.

    lmms-lab names the tower by its hub id alone. A `vision_config` in config.json, or `mm_vision_tower` naming a folder
    with its own config.json, overrides what the tensors cannot tell.
    """
    tower = "model.vision_tower."
    try:
        patches = renamed[tower + "embeddings.patch_embedding.weight"]  # (D, 3, patch, patch)
        positions = len(renamed[tower + "embeddings.position_embedding.weight"])
        feed_forward = len(renamed[tower + "encoder.layers.0.mlp.fc1.weight"])
    except KeyError as error:
        raise CheckpointError(
            f"missing key {error.args[0]!r} (transformers' name) in {str(checkpoint.folder)!r}"
        ) from error
    hidden, _, patch_size, _ = patches.shape
    given = _given_vision_config(checkpoint)
    grid = round(positions**0.5)
    is_so400m_grid = (grid, patch_size) == (_SO400M["image_size"] // _SO400M["patch_size"], _SO400M["patch_size"])
    heads = given.pop("num_attention_heads", hidden // _SO400M["head_dim"])
    if heads < 1 or hidden % heads:
        raise CheckpointError(
            f"expected num_attention_heads in a vision_config: {hidden} wide is not so400m's geometry"
        )
    layer = re.compile(re.escape(tower) + r"encoder\.layers\.(\d+)\.")
    of_tensors = {
        "hidden_size": hidden,
        "intermediate_size": feed_forward,
        "num_hidden_layers": 1 + max(int(found[1]) for name in renamed if (found := layer.match(name))),
        "patch_size": patch_size,
        "vision_use_head": False,
    }
    image_size = given.pop("image_size", _SO400M["image_size"] if is_so400m_grid else grid * patch_size)
    arithmetic = {key: given[key] for key in ("hidden_act", "layer_norm_eps", "num_channels") if key in given}
    return SiglipVisionConfig(**of_tensors, **arithmetic, num_attention_heads=heads, image_size=image_size)


def _given_vision_config(checkpoint: Checkpoint) -> dict[str, Any]:
    if isinstance(checkpoint.config.get("vision_config"), dict):
        return dict(checkpoint.config["vision_config"])
    beside = checkpoint.folder / str(checkpoint.config["mm_vision_tower"]) / "config.json"
    if not beside.is_file():
        return {}
    found: dict[str, Any] = json.loads(beside.read_text())
    return dict(found.get("vision_config", found))
