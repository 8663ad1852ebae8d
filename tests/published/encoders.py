"""SigLIP, SigLIP2 and CLIP as published.

Sources: the configurations of google/siglip-so400m-patch14-384, google/siglip-base-patch16-224 and -384 and
google/siglip2-base-patch16-224 as transformers' convert_siglip_to_hf.py writes them (fields at their defaults are left
out), of openai/clip-vit-base-patch32 as transformers' documentation and tests hold it; SigLIP2's tokenizer as pull
requests 43101 (huggingface/transformers) and 157 (google-research/big_vision) describe it. CLIP's safetensors were
converted from files that also held two tables of position ids, which no model reads.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from tests.published.files import randomise, write_json, write_weights
from tests.published.vocabularies import special, write_clip, write_gemma, write_sentencepiece

HALF = [0.5, 0.5, 0.5]


@dataclass(frozen=True)
class PublishedEncoder:
    """`config` and `preprocessor` to the letter; `tokenizer` is whose files are written; `width` replaces the width."""

    config: dict[str, Any]
    preprocessor: dict[str, Any]
    tokenizer: str
    head: int
    """Width of an attention head, which stays when the number of heads shrinks."""
    dtype: torch.dtype = torch.float32


def _siglip(text: dict[str, Any], vision: dict[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["SiglipModel"],
        "initializer_factor": 1.0,
        "model_type": "siglip",
        "text_config": {"model_type": "siglip_text_model", **text},
        "torch_dtype": "float32",
        "transformers_version": "4.37.0.dev0",
        "vision_config": {"model_type": "siglip_vision_model", **vision},
    }


def _siglip_pixels(size: int, resample: int = 3) -> dict[str, Any]:
    return {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": HALF,
        "image_processor_type": "SiglipImageProcessor",
        "image_std": HALF,
        "processor_class": "SiglipProcessor",
        "resample": resample,
        "rescale_factor": 0.00392156862745098,
        "size": {"height": size, "width": size},
    }


_SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16, "num_hidden_layers": 27}
_SIGLIP2 = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
_CLIP_TEXT = {  # transformers saved every field then; what never reached arithmetic is left out here
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dropout": 0.0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 512,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 2048,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 8,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "projection_dim": 512,
    "vocab_size": 49408,
}
_CLIP_VISION = {
    "attention_dropout": 0.0,
    "dropout": 0.0,
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "image_size": 224,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "model_type": "clip_vision_model",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "patch_size": 32,
    "projection_dim": 512,
}

ENCODERS = {
    "google/siglip-so400m-patch14-384": PublishedEncoder(
        _siglip(_SO400M, {**_SO400M, "image_size": 384, "patch_size": 14}), _siglip_pixels(384), "sentencepiece", 72
    ),
    "google/siglip-base-patch16-224": PublishedEncoder(_siglip({}, {}), _siglip_pixels(224), "sentencepiece", 64),
    "google/siglip-base-patch16-384": PublishedEncoder(
        _siglip({}, {"image_size": 384}), _siglip_pixels(384), "sentencepiece", 64
    ),
    "google/siglip2-base-patch16-224": PublishedEncoder(
        _siglip(
            {**_SIGLIP2, "projection_size": 768, "vocab_size": 256000},
            {**_SIGLIP2, "image_size": 224, "patch_size": 16},
        ),
        _siglip_pixels(224, resample=2),
        "gemma",
        64,
    ),
    "openai/clip-vit-base-patch32": PublishedEncoder(
        {
            "architectures": ["CLIPModel"],
            "initializer_factor": 1.0,
            "logit_scale_init_value": 2.6592,
            "model_type": "clip",
            "projection_dim": 512,
            "text_config": _CLIP_TEXT,
            "vision_config": _CLIP_VISION,
        },
        {
            "crop_size": 224,
            "do_center_crop": True,
            "do_normalize": True,
            "do_resize": True,
            "feature_extractor_type": "CLIPFeatureExtractor",
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "resample": 3,
            "size": 224,
        },
        "clip",
        64,
    ),
}


def reduced(published: PublishedEncoder, n_layers: int, heads: int | None) -> dict[str, Any]:
    """The configuration with `n_layers` and `heads` in each tower, None for all, and nothing else changed."""
    config = copy.deepcopy(published.config)
    for tower in ("text_config", "vision_config"):
        config[tower]["num_hidden_layers"] = n_layers
        if heads is not None:
            width = heads * published.head
            config[tower] |= {"hidden_size": width, "intermediate_size": 2 * width, "num_attention_heads": heads}
            if "projection_size" in config[tower]:
                config[tower]["projection_size"] = width
    return config


def write_encoder(folder: Path, name: str, n_layers: int = 2, heads: int | None = 1, seed: int = 0) -> torch.nn.Module:
    """The files of `name` at reduced depth and width. Returns transformers' own model with the same weights."""
    published = ENCODERS[name]
    folder.mkdir(parents=True, exist_ok=True)
    config = reduced(published, n_layers, heads)
    model: torch.nn.Module
    if config["model_type"] == "clip":
        model = CLIPModel(CLIPConfig.from_dict(copy.deepcopy(config)))
    else:
        model = SiglipModel(SiglipConfig.from_dict(copy.deepcopy(config)))
    randomise(model, seed)
    tensors = dict(model.state_dict())
    if config["model_type"] == "clip":
        tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
        patches = (224 // 32) ** 2
        tensors["vision_model.embeddings.position_ids"] = torch.arange(patches + 1)[None]
    write_json(folder / "config.json", config)
    write_json(folder / "preprocessor_config.json", published.preprocessor)
    write_weights(folder, tensors, published.dtype)
    {"sentencepiece": _write_siglip_tokenizer, "gemma": write_gemma, "clip": write_clip}[published.tokenizer](folder)
    return model.eval()


def _write_siglip_tokenizer(folder: Path) -> None:
    write_sentencepiece(folder / "spiece.model")
    ends = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    stripped = {"lstrip": True, "rstrip": True}
    write_json(folder / "special_tokens_map.json", {name: {**special(t), **stripped} for name, t in ends.items()})
    write_json(
        folder / "tokenizer_config.json",
        {
            "added_tokens_decoder": {str(i): {**special(t), **stripped} for i, t in ((1, "</s>"), (2, "<unk>"))},
            "additional_special_tokens": [],
            "clean_up_tokenization_spaces": True,
            "do_lower_case": True,
            **ends,
            "model_input_names": ["input_ids"],
            "model_max_length": 64,
            "processor_class": "SiglipProcessor",
            "sp_model_kwargs": {},
            "tokenizer_class": "SiglipTokenizer",
        },
    )
