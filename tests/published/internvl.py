"""InternVL3 and InternVL3.5 in transformers' layout (`-hf` and `-HF` checkpoints), as published.

Sources: configuration and processors as huggingface/transformers' convert_internvl_weights_to_hf.py writes them from
OpenGVLab/InternVL3-1B and -38B; the towers' numbers also stand in OpenGVLab/InternVL's internvl_custom2hf.py, values
of the decoder's configuration in modelscope/ms-swift issue 1649 and vllm-project/vllm issue 17634. Special tokens and
their ids: linkedin/Liger-Kernel, test/resources/fake_configs/OpenGVLab/InternVL3-1B-hf/tokenizer_config.json; the chat
template is written anew and renders the same text. Key names: those that transformers' conversion mapping of "llava"
renames; at full depth they are the 733 that the 1B is reported to have. InternVL3.5 has another decoder, Qwen3, whose
vocabulary moves the image token to 151671: internvl_custom2hf.py again, and a public engine's test of the 2B for the
decoder's numbers.

Two things of the published files are easily taken for faults. The token <video>, id 151674, lies beyond the 151,674
rows of the embedding table: the processor replaces it before the model sees it. And `tie_word_embeddings` is true by
default at the top, while the file holds an lm_head of its own, which counts.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from transformers import InternVLConfig, InternVLForConditionalGeneration

from tests.published.files import randomise, write_json, write_weights
from tests.published.vocabularies import QWEN2_FIRST_SPECIAL, qwen2_tokenizer, special

INTERNVIT_300M: dict[str, Any] = {
    "attention_bias": True,
    "attention_dropout": 0.0,
    "dropout": 0.0,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "hidden_size": 1024,
    "image_size": [448, 448],
    "initializer_factor": 0.1,
    "initializer_range": 1e-10,
    "intermediate_size": 4096,
    "layer_norm_eps": 1e-06,
    "layer_scale_init_value": 0.1,
    "model_type": "internvl_vision",
    "norm_type": "layer_norm",
    "num_attention_heads": 16,
    "num_channels": 3,
    "num_hidden_layers": 24,
    "patch_size": [14, 14],
    "projection_dropout": 0.0,
    "torch_dtype": "bfloat16",
    "use_absolute_position_embeddings": True,
    "use_mask_token": False,
    "use_mean_pooling": True,
    "use_qk_norm": False,
}
INTERNVIT_6B = INTERNVIT_300M | {
    "attention_bias": False,
    "hidden_size": 3200,
    "intermediate_size": 12800,
    "norm_type": "rms_norm",
    "num_attention_heads": 25,
    "num_hidden_layers": 45,
    "use_qk_norm": True,
}
QWEN2_5_0_5B: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 896,
    "initializer_range": 0.02,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 21,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151674,
}
QWEN2_5_32B = QWEN2_5_0_5B | {
    "hidden_size": 5120,
    "intermediate_size": 27648,
    "max_window_layers": 64,
    "num_attention_heads": 40,
    "num_hidden_layers": 64,
    "num_key_value_heads": 8,
}
QWEN3_1_7B: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 6144,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}


def _config(text: dict[str, Any], vision: dict[str, Any], image_token_id: int = 151667) -> dict[str, Any]:
    return {
        "architectures": ["InternVLForConditionalGeneration"],
        "downsample_ratio": 0.5,
        "image_seq_length": 256,
        "image_token_id": image_token_id,
        "model_type": "internvl",
        "projector_hidden_act": "gelu",
        "text_config": text,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.52.0.dev0",
        "vision_config": vision,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
    }


CONFIGS = {
    "OpenGVLab/InternVL3-1B-hf": _config(QWEN2_5_0_5B, INTERNVIT_300M),
    "OpenGVLab/InternVL3-38B-hf": _config(QWEN2_5_32B, INTERNVIT_6B),
    "OpenGVLab/InternVL3_5-2B-HF": _config(QWEN3_1_7B, INTERNVIT_300M, image_token_id=151671),
}
PREPROCESSOR: dict[str, Any] = {
    "crop_to_patches": False,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "GotOcr2ImageProcessorFast",
    "image_std": [0.229, 0.224, 0.225],
    "max_patches": 12,
    "min_patches": 1,
    "processor_class": "InternVLProcessor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 448, "width": 448},
}
VIDEO_PREPROCESSOR: dict[str, Any] = {
    **{key: PREPROCESSOR[key] for key in ("do_convert_rgb", "do_normalize", "do_rescale", "do_resize", "image_mean")},
    **{key: PREPROCESSOR[key] for key in ("image_std", "processor_class", "resample", "rescale_factor", "size")},
    "do_sample_frames": False,
    "initial_shift": True,
    "video_processor_type": "InternVLVideoProcessor",
}
_QWEN2_5 = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
_PLAIN = [
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
]  # added tokens that are not special
_QWEN3 = ["<tool_response>", "</tool_response>", "<think>", "</think>"]  # the same
_INTERNVL = ["<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>", "<video>"]
CHAT_TEMPLATE = (
    "{%- for turn in messages -%}{{ '<|im_start|>' ~ turn.role ~ '\\n' }}"
    "{%- if turn.content is string -%}{{ turn.content }}"
    "{%- else -%}{%- for part in turn.content -%}"
    "{%- if part.type == 'image' -%}{{ '<IMG_CONTEXT>\\n' }}"
    "{%- elif part.type == 'video' -%}{{ '<video>\\n' }}"
    "{%- elif part.type == 'text' -%}{{ part.text }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}{{ '<|im_end|>\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


def reduced(name: str, n_layers: int) -> dict[str, Any]:
    """The configuration of `name`: `n_layers` in the decoder, 2 in the tower, few heads, nothing else changed."""
    config = copy.deepcopy(CONFIGS[name])
    text, vision = config["text_config"], config["vision_config"]
    head = vision["hidden_size"] // vision["num_attention_heads"]
    text_head = text["hidden_size"] // text["num_attention_heads"]
    vision |= {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 2 * head, "intermediate_size": 192}
    heads = 2 if "head_dim" in text else 128 // text_head
    text |= {"num_hidden_layers": n_layers, "num_attention_heads": heads, "num_key_value_heads": 1}
    text |= {"hidden_size": 128, "intermediate_size": 176}
    return config


def write_internvl(
    folder: Path, name: str = "OpenGVLab/InternVL3-1B-hf", n_layers: int = 6, seed: int = 0
) -> InternVLForConditionalGeneration:
    """The files of `name` at reduced depth and width. Returns transformers' own model with the same weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = reduced(name, n_layers)
    plain = InternVLConfig.from_dict(copy.deepcopy(config))
    plain.tie_word_embeddings = False  # the published lm_head is no copy of the embeddings
    model = InternVLForConditionalGeneration(plain).float()
    randomise(model, seed)
    for parameter, weight in model.named_parameters():
        if "lambda_" in parameter:  # layer scale: one that matters
            torch.nn.init.uniform_(weight, 0.5, 1.5, generator=torch.Generator().manual_seed(seed))
    write_json(folder / "config.json", config)
    eos = {"_from_model_config": True, "bos_token_id": 151643, "eos_token_id": 151645}
    write_json(folder / "generation_config.json", {**eos, "transformers_version": "4.52.0.dev0"})
    write_json(folder / "preprocessor_config.json", PREPROCESSOR)
    write_json(folder / "video_preprocessor_config.json", VIDEO_PREPROCESSOR)
    write_json(folder / "processor_config.json", {"image_seq_length": 256, "processor_class": "InternVLProcessor"})
    tensors = {published_key(key): tensor for key, tensor in model.state_dict().items()}
    write_weights(folder, tensors, torch.bfloat16)
    _write_tokenizer(folder, _PLAIN + (_QWEN3 if config["text_config"]["model_type"] == "qwen3" else []))
    for weight in model.parameters():
        weight.data = weight.data.bfloat16().float()  # as the file holds it; buffers stay exact
    return model.eval()


def published_key(key: str) -> str:
    """transformers 5's name of a tensor -> its name in the published file, which is older."""
    if key.startswith("lm_head."):
        return "language_model." + key
    return key.removeprefix("model.").replace("language_model.", "language_model.model.", 1)


def _write_tokenizer(folder: Path, plain: list[str]) -> None:
    """`plain`: added tokens that are not special."""
    tokenizer = qwen2_tokenizer(_QWEN2_5)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in plain])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in _INTERNVL])
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))
    added = enumerate([*_QWEN2_5, *plain, *_INTERNVL], QWEN2_FIRST_SPECIAL)
    named = {"context_image_token": "<IMG_CONTEXT>", "end_image_token": "</img>", "start_image_token": "<img>"}
    named["video_token"] = "<video>"
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": {str(i): {**special(token), "special": token not in plain} for i, token in added},
            "additional_special_tokens": [*_QWEN2_5[1:], *_INTERNVL[:-1]],
            "bos_token": None,
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "errors": "replace",
            "extra_special_tokens": named,
            **named,
            "model_max_length": 8192,
            "pad_token": "<|endoftext|>",
            "return_token_type_ids": False,
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
        },
    )
