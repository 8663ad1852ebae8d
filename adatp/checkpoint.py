"""Loading a Video LLM from a local folder: transformers' LLaVA-OneVision layout, or lmms-lab's original one.

safetensors only, no remote code; every tensor of the file has a place in the model and every parameter is in the file,
or loading stops and names the keys. Both layouts end in the same unmodified transformers class (METHOD 3.1 to 3.3).
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    LlavaOnevisionConfig,
    Qwen2Config,
    SiglipVisionConfig,
)
from transformers import LlavaOnevisionForConditionalGeneration as HFModel

from adatp.model import VideoLLM
from adatp.prompt import NO_VIDEO_TOKEN, load_prompt
from adatp.vision import LLAVA_VIDEO, ONEVISION, FrameLayout

_LMMS_TEXT = frozenset(
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
_LMMS_ONLY: dict[str, tuple[Any, ...]] = {  # settings with a single meaning here; null or absent stands for it as well
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
_LMMS_ELSEWHERE = frozenset(
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
_LMMS_KEYS = (  # lmms-lab name -> transformers module path
    (r"^model\.vision_tower\.vision_tower\.(vision_model\.)?", "model.vision_tower."),
    (r"^model\.mm_projector\.0\.", "model.multi_modal_projector.linear_1."),
    (r"^model\.mm_projector\.2\.", "model.multi_modal_projector.linear_2."),
    (r"^model\.image_newline$", "model.image_newline"),
    (r"^lm_head\.", "lm_head."),
    (r"^model\.(?=embed_tokens\.|layers\.|norm\.)", "model.language_model."),
)


class CheckpointError(Exception):
    """Not a checkpoint this library reads; the message says what was found and what was expected."""


def load(
    path: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    frame_layout: FrameLayout | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> VideoLLM:
    """Load a Video LLM from the folder `path`.

    Args:
        path: a local folder with config.json, *.safetensors and a tokenizer.
        dtype: float32 or bfloat16; float16 overflows in these models' attention scores.
        frame_layout: how frames become tokens. None reads it from config.json: `mm_newline_position` "grid" means
            LLaVA-Video (average pooling and a newline per row, as it is evaluated, whatever mm_spatial_pool_mode says),
            anything else OneVision. Converted LLaVA-Video checkpoints that lost the field need `LLAVA_VIDEO` here.
        tensors: weights by the names of the folder's files, in place of those files, which then need not be there:
            `shapes` of their headers check a checkpoint without reading, or even having, its weights.

    Raises:
        CheckpointError: not such a folder, another architecture, pickled weights, missing or surplus keys.
    """
    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"expected a local folder with config.json, got {str(path)!r}")
    if tensors is None and not list(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"expected *.safetensors in {str(path)!r}, found {sorted(p.name for p in folder.iterdir())}"
        )
    raw: dict[str, Any] = json.loads((folder / "config.json").read_text())
    is_lmms_lab = "mm_vision_tower" in raw
    hf = _load_lmms_lab(folder, raw, dtype, tensors) if is_lmms_lab else _load_transformers(folder, dtype, tensors)
    _check_supported(hf.config)
    if frame_layout is None:
        frame_layout = _layout_of(raw)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if len(tokenizer) > (rows := hf.config.text_config.vocab_size):
        raise CheckpointError(f"expected a tokenizer of at most {rows} tokens in {str(path)!r}, got {len(tokenizer)}")
    video_token_id = NO_VIDEO_TOKEN if is_lmms_lab else hf.config.video_token_id
    return VideoLLM(
        hf=hf.to(device).eval().requires_grad_(False),
        layout=frame_layout,
        prompt=load_prompt(folder, tokenizer, video_token_id),
        stop_token_ids=_stop_tokens(folder, tokenizer),
    )


def _layout_of(raw: dict[str, Any]) -> FrameLayout:
    if raw.get("mm_newline_position") == "grid":
        return LLAVA_VIDEO
    return (
        ONEVISION if raw.get("mm_spatial_pool_mode") is None else FrameLayout(raw["mm_spatial_pool_mode"], "one_token")
    )


def shapes(headers: Mapping[str, tuple[int, ...]], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Tensors that have a shape and no memory, for `load(tensors=...)`: each is a single zero seen many times."""
    return {name: torch.zeros((), dtype=dtype).expand(shape) for name, shape in headers.items()}


def _load_transformers(folder: Path, dtype: torch.dtype, tensors: Mapping[str, Tensor] | None) -> Any:
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if config.model_type != "llava_onevision":
        raise CheckpointError(f"expected model_type llava_onevision in {str(folder)!r}, got {config.model_type!r}")
    model, report = HFModel.from_pretrained(
        folder if tensors is None else None,
        config=config,
        state_dict=None if tensors is None else dict(tensors),
        dtype=dtype,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they reach the report with the other keys, instead of a bare raise
    )
    _refuse_differences(folder, report)
    return model


def _load_lmms_lab(folder: Path, raw: dict[str, Any], dtype: torch.dtype, given: Mapping[str, Tensor] | None) -> Any:
    """The original LLaVA-NeXT layout: same modules under other names, and no vision configuration of its own."""
    tensors = _read_safetensors(folder) if given is None else given
    renamed = {_transformers_name(name): tensor for name, tensor in tensors.items()}
    config = LlavaOnevisionConfig(
        vision_config=_lmms_vision_config(folder, raw, renamed),
        text_config=_lmms_text_config(raw, renamed),
        # the published 0.5B has no lm_head and says "tie_word_embeddings": false
        tie_word_embeddings=bool(raw.get("tie_word_embeddings")) or "lm_head.weight" not in renamed,
        vision_feature_layer=-1,
        projector_hidden_act="gelu",
    )
    model, report = HFModel.from_pretrained(
        None,
        config=config,
        state_dict=renamed,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    _refuse_differences(folder, report)
    return model


def _read_safetensors(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            tensors.update({name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118  not a dict
    return tensors


def _transformers_name(name: str) -> str:
    for pattern, place in _LMMS_KEYS:
        if re.match(pattern, name):
            return re.sub(pattern, place, name)
    raise CheckpointError(f"surplus key {name!r}: no place for it in a LLaVA-OneVision class model")


def _lmms_text_config(raw: dict[str, Any], renamed: dict[str, Tensor]) -> Qwen2Config:
    """The decoder's numbers, every one carried; what this library would have to ignore is refused by name."""
    for key, allowed in _LMMS_ONLY.items():
        if raw.get(key) is not None and raw[key] not in allowed:
            raise CheckpointError(f"config.json: expected {key} {_either(allowed)}, got {raw[key]!r}")
    known = _LMMS_TEXT | _LMMS_ONLY.keys() | _LMMS_ELSEWHERE
    if unknown := sorted(key for key, value in raw.items() if key not in known and value is not None):
        raise CheckpointError(f"config.json: unknown settings {', '.join(unknown)}; they may change the model's output")
    text = {key: value for key, value in raw.items() if key in _LMMS_TEXT}
    if text.get("rope_scaling") is None:
        text.pop("rope_scaling", None)
    return Qwen2Config(**text, vocab_size=len(renamed["model.language_model.embed_tokens.weight"]))


def _either(allowed: tuple[Any, ...]) -> str:
    return " or ".join([*map(repr, allowed), "null"])


def _lmms_vision_config(folder: Path, raw: dict[str, Any], renamed: dict[str, Tensor]) -> SiglipVisionConfig:
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
        raise CheckpointError(f"missing key {error.args[0]!r} (transformers' name) in {str(folder)!r}") from error
    hidden, _, patch_size, _ = patches.shape
    given = _given_vision_config(folder, raw)
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


def _given_vision_config(folder: Path, raw: dict[str, Any]) -> dict[str, Any]:
    if isinstance(raw.get("vision_config"), dict):
        return dict(raw["vision_config"])
    beside = folder / str(raw["mm_vision_tower"]) / "config.json"
    if not beside.is_file():
        return {}
    found: dict[str, Any] = json.loads(beside.read_text())
    return dict(found.get("vision_config", found))


def _refuse_differences(folder: Path, report: dict[str, Any]) -> None:
    kinds = {"missing": "missing_keys", "surplus": "unexpected_keys", "wrongly shaped": "mismatched_keys"}
    found = {kind: sorted(map(str, report[key])) for kind, key in kinds.items() if report[key]}
    if found:
        listing = "; ".join(f"{len(keys)} {kind}: {', '.join(keys[:8])}" for kind, keys in found.items())
        raise CheckpointError(f"{str(folder)!r} does not fit its own configuration: {listing}")


def _check_supported(config: Any) -> None:
    text, vision = config.text_config.model_type, config.vision_config.model_type
    if text != "qwen2" or vision != "siglip_vision_model":
        raise CheckpointError(f"expected a qwen2 decoder and a siglip_vision_model tower, got {text} and {vision}")
    if getattr(config.text_config, "use_sliding_window", False):
        raise CheckpointError("expected full attention in every decoder layer, got use_sliding_window=true")
    if (rope := config.text_config.rope_parameters["rope_type"]) in ("dynamic", "longrope"):
        raise CheckpointError(f"expected a rotary embedding of fixed frequencies, got rope_type {rope!r}")
    if not isinstance(config.vision_feature_layer, int) or config.vision_feature_select_strategy != "full":
        raise CheckpointError(
            "expected one vision_feature_layer and strategy full, got "
            f"{config.vision_feature_layer} and {config.vision_feature_select_strategy}"
        )


def _stop_tokens(folder: Path, tokenizer: Any) -> frozenset[int]:
    """End-of-sequence ids of the generation configuration and the tokenizer, and ChatML's end of turn."""
    stops = {tokenizer.eos_token_id, tokenizer.get_vocab().get("<|im_end|>")}
    if (folder / "generation_config.json").is_file():
        eos = GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id
        stops.update(eos if isinstance(eos, list) else [eos])
    return frozenset(int(i) for i in stops if i is not None)
