"""LLaVA-OneVision as llava-hf publishes it, and OneVision and LLaVA-Video as lmms-lab does.

Sources: transformers' convert_llava_onevision_weights_to_hf.py (llava-hf's files, key names, two more tokens and
vocabularies rounded up to 64) and pull request 43617 (the 0.5B is tied in text_config and untied above it); the
configuration of lmms-lab/llava-onevision-qwen2-7b-ov as PaddleMIX's tests hold it; vllm issue 13190 (LLaVA-Video's
settings); LLaVA-NeXT issue 315 (lmms-lab's 0.5B has no lm_head); Qwen/Qwen2-0.5B, -7B and -72B-Instruct (decoders).
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, Qwen2Config, SiglipVisionConfig

from tests.published.files import randomise, write_json, write_weights
from tests.published.vocabularies import write_qwen2

PINPOINTS = [[384 * i, 384 * j] for i in range(1, 7) for j in range(1, 7)]
TOWER = {
    "hidden_size": 1152,
    "image_size": 384,
    "intermediate_size": 4304,
    "model_type": "siglip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 26,
    "patch_size": 14,
    "vision_use_head": False,
}
TEMPLATE = (  # renders what llava-hf's chat_template.json renders
    "{% for turn in messages %}{{ '<|im_start|>' + turn['role'] + ' ' }}"
    "{% for kind in ['image', 'video'] %}{% for part in turn['content'] %}"
    "{% if part['type'] == kind %}{{ '<' + kind + '>' }}{% endif %}{% endfor %}{% endfor %}"
    "{% for part in turn['content'] %}{% if part['type'] == 'text' %}{{ '\\n' + part['text'] }}{% endif %}{% endfor %}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")  # 151643 to 151645


@dataclass(frozen=True)
class Decoder:
    """A Qwen2-Instruct's numbers. `ratio` query heads share a key head at every width."""

    hidden: int
    feed_forward: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int
    tied: bool
    eps: float = 1e-6
    max_window_layers: int = 28

    @property
    def ratio(self) -> int:
        return self.heads // self.key_heads


QWEN2_05B = Decoder(896, 4864, 24, 14, 2, 151936, True, max_window_layers=24)
QWEN2_7B = Decoder(3584, 18944, 28, 28, 4, 152064, False)
QWEN2_72B = Decoder(8192, 29568, 80, 64, 8, 152064, False, max_window_layers=80)


@dataclass(frozen=True)
class PublishedLlava:
    """A checkpoint's decoder, the dtype and number of its weight files, and for lmms-lab its newline position."""

    decoder: Decoder
    dtype: torch.dtype
    n_shards: int
    newline: str | None = None


LLAVAS = {
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": PublishedLlava(QWEN2_05B, torch.float16, 1),
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": PublishedLlava(QWEN2_7B, torch.float16, 4),
    "llava-hf/llava-onevision-qwen2-72b-ov-hf": PublishedLlava(QWEN2_72B, torch.float16, 32),
    "lmms-lab/llava-onevision-qwen2-0.5b-ov": PublishedLlava(QWEN2_05B, torch.bfloat16, 1, "one_token"),
    "lmms-lab/llava-onevision-qwen2-7b-ov": PublishedLlava(QWEN2_7B, torch.bfloat16, 4, "one_token"),
    "lmms-lab/LLaVA-Video-7B-Qwen2": PublishedLlava(QWEN2_7B, torch.bfloat16, 4, "grid"),
}


def text_config(decoder: Decoder, n_layers: int, head_dim: int | None) -> dict[str, Any]:
    """The decoder with one key head and `n_layers`, or at its true width for a `head_dim` of None.

    Every number that is no size is the published one.
    """
    heads, key_heads = (decoder.ratio, 1) if head_dim else (decoder.heads, decoder.key_heads)
    hidden = heads * head_dim if head_dim else decoder.hidden
    return {
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": 2 * hidden if head_dim else decoder.feed_forward,
        "max_position_embeddings": 32768,
        "max_window_layers": decoder.max_window_layers,
        "num_attention_heads": heads,
        "num_hidden_layers": n_layers,
        "num_key_value_heads": key_heads,
        "rms_norm_eps": decoder.eps,
        "rope_theta": 1000000.0,
        "sliding_window": 131072,
        "use_cache": True,
        "use_sliding_window": False,
    }


def tower_config(n_layers: int, is_true_width: bool) -> dict[str, Any]:
    """The tower, with one head of its 72 unless at true width."""
    width = {} if is_true_width else {"hidden_size": 72, "intermediate_size": 144, "num_attention_heads": 1}
    return {**TOWER, **width, "num_hidden_layers": n_layers}


def effective_config(
    name: str, n_layers: int = 4, head_dim: int | None = 8, tower_layers: int = 2
) -> LlavaOnevisionConfig:
    """What the checkpoint means, as transformers' own configuration."""
    published = LLAVAS[name]
    text = text_config(published.decoder, n_layers, head_dim)
    rows = published.decoder.vocabulary if published.newline else -(-(published.decoder.vocabulary + 2) // 64) * 64
    return LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**tower_config(tower_layers, head_dim is None)),
        text_config=Qwen2Config(**text, vocab_size=rows, tie_word_embeddings=published.decoder.tied),
        image_token_index=151646,
        video_token_index=151647,
        tie_word_embeddings=published.decoder.tied,
    )


def write_llava(
    folder: Path, name: str, n_layers: int = 4, head_dim: int | None = 8, tower_layers: int = 2, seed: int = 0
) -> LlavaOnevisionForConditionalGeneration:
    """The files of `name` at reduced depth and width; `head_dim` None keeps the width.

    Returns transformers' own model with the same weights.
    """
    published = LLAVAS[name]
    folder.mkdir(parents=True, exist_ok=True)
    model = LlavaOnevisionForConditionalGeneration(effective_config(name, n_layers, head_dim, tower_layers))
    randomise(model, seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.to(published.dtype))  # the truth has what the files can hold
    model.tie_weights()
    text = text_config(published.decoder, n_layers, head_dim)
    if published.newline is None:
        _write_llava_hf(folder, published, model, text, tower_config(tower_layers, head_dim is None))
    else:
        _write_lmms_lab(folder, name, published, model, text)
    return model.eval()


def _renamed(model: Any, places: tuple[tuple[str, str], ...], drop_head: bool) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, tensor in model.state_dict().items():
        if drop_head and name == "lm_head.weight":
            continue
        for ours, theirs in places:
            if name.startswith(ours):
                name = theirs + name.removeprefix(ours)
                break
        tensors[name] = tensor
    return tensors


def _write_llava_hf(
    folder: Path, published: PublishedLlava, model: Any, text: dict[str, Any], tower: dict[str, Any]
) -> None:
    places = (
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
        ("model.vision_tower.", "vision_tower.vision_model."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
        ("model.image_newline", "image_newline"),
    )
    write_weights(folder, _renamed(model, places, published.decoder.tied), published.dtype, published.n_shards)
    decoder = {
        k: v for k, v in text.items() if k not in ("attention_dropout", "hidden_act", "initializer_range", "use_cache")
    }
    write_json(
        folder / "config.json",
        {
            "architectures": ["LlavaOnevisionForConditionalGeneration"],
            "ignore_index": -100,
            "image_grid_pinpoints": PINPOINTS,
            "image_token_index": 151646,
            "model_type": "llava_onevision",
            "projector_hidden_act": "gelu",
            "text_config": {
                **decoder,
                "architectures": ["Qwen2ForCausalLM"],
                "model_type": "qwen2",
                "tie_word_embeddings": published.decoder.tied,
                "torch_dtype": "bfloat16",
                "vocab_size": model.config.text_config.vocab_size,
            },
            "tie_word_embeddings": False,
            "torch_dtype": "float16",
            "transformers_version": "4.45.0.dev0",
            "use_image_newline_parameter": True,
            "video_token_index": 151647,
            "vision_aspect_ratio": "anyres_max_9",
            "vision_config": tower,
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
        },
    )
    write_json(
        folder / "preprocessor_config.json",
        {
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_pad": True,
            "do_rescale": True,
            "do_resize": True,
            "image_grid_pinpoints": PINPOINTS,
            "image_mean": [0.5, 0.5, 0.5],
            "image_processor_type": "LlavaOnevisionImageProcessor",
            "image_std": [0.5, 0.5, 0.5],
            "processor_class": "LlavaOnevisionProcessor",
            "resample": 3,
            "rescale_factor": 0.00392156862745098,
            "size": {"height": 384, "width": 384},
        },
    )
    write_json(
        folder / "processor_config.json",
        {
            "image_token": "<image>",
            "num_image_tokens": 729,
            "processor_class": "LlavaOnevisionProcessor",
            "video_token": "<video>",
            "vision_feature_select_strategy": "full",
        },
    )
    write_json(folder / "chat_template.json", {"chat_template": TEMPLATE})
    write_json(
        folder / "generation_config.json", {"_from_model_config": True, "bos_token_id": 151643, "eos_token_id": 151645}
    )
    write_qwen2(folder, [*SPECIALS, "<image>", "<video>"], processor_class="LlavaOnevisionProcessor")


def _write_lmms_lab(folder: Path, name: str, published: PublishedLlava, model: Any, text: dict[str, Any]) -> None:
    places = (
        ("model.vision_tower.", "model.vision_tower.vision_tower.vision_model."),
        ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
        ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
        ("model.language_model.", "model."),
    )
    write_weights(folder, _renamed(model, places, published.decoder.tied), published.dtype, published.n_shards)
    config: dict[str, Any] = {
        "_name_or_path": name,
        "architectures": ["LlavaQwenForCausalLM"],
        **text,
        "image_aspect_ratio": "anyres_max_9",
        "image_crop_resolution": None,
        "image_grid_pinpoints": copy.deepcopy(PINPOINTS),
        "image_split_resolution": None,
        "image_token_index": 151646,
        "mm_hidden_size": 1152,
        "mm_newline_position": published.newline,
        "mm_patch_merge_type": "spatial_unpad",
        "mm_projector_lr": None,
        "mm_projector_type": "mlp2x_gelu",
        "mm_resampler_type": None,
        "mm_spatial_pool_mode": "bilinear",
        "mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter,mm_language_model",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": "google/siglip-so400m-patch14-384",
        "mm_vision_tower_lr": 2e-06,
        "model_type": "llava",
        "pos_skipping_range": 4096,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "tokenizer_model_max_length": 32768,
        "tokenizer_padding_side": "right",
        "torch_dtype": "bfloat16",
        "transformers_version": "4.40.0.dev0",
        "use_mm_proj": True,
        "use_pos_skipping": False,
        "vision_tower_pretrained": None,
        "vocab_size": published.decoder.vocabulary,
    }
    if published.newline == "grid":
        config |= {
            "add_faster_video": False,
            "add_time_instruction": True,
            "faster_token_stride": 10,
            "force_sample": True,
            "mm_spatial_pool_stride": 2,
        }
    write_json(folder / "config.json", config)
    write_json(
        folder / "generation_config.json",
        {
            "attn_implementation": "flash_attention_2",
            "bos_token_id": 151643,
            "do_sample": True,
            "eos_token_id": [151645, 151643],
            "pad_token_id": 151643,
            "repetition_penalty": 1.05,
            "temperature": 0.7,
            "top_k": 20,
            "top_p": 0.8,
            "transformers_version": "4.40.0.dev0",
        },
    )
    template = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' "
        "+ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    write_qwen2(folder, SPECIALS, chat_template=template)
