"""SmolVLM2 as published.

Sources: configuration, processors and added tokens of HuggingFaceTB/SmolVLM2-500M-Video-Instruct as a public test cache
of lerobot's SmolVLA copies them ("verbatim from the model card"); of SmolVLM2-256M-Video-Instruct, its
tokenizer_config.json in linkedin/Liger-Kernel, test/resources/fake_configs/HuggingFaceTB, and its sizes in that
repository's test/convergence; of SmolVLM2-2.2B-Instruct, sizes read off the hub in a public KV-cache test (rotary base
130,000, 27 tower layers, pixel shuffle 3) and ggml-org/llama.cpp's note that its decoder's heads are left out. Chat
templates are written anew and render the same text. Key names: transformers' own classes, which the files follow.

Two things of the published files are easily taken for faults: `pad_token_id` 128002 lies beyond the vocabulary, and
the tower's depth and feed-forward width are left to the class's defaults, which are right. There is no <video> token:
frames are images, and the template of the files does not know videos at all.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tests.published.files import randomise, write_json, write_weights
from tests.published.vocabularies import QWEN2_WORDS, WORDS, byte_pairs, fill, special

_TEXT: dict[str, Any] = {
    "architectures": ["VLlama3ForCausalLM"],
    "head_dim": 64,
    "is_llama_config": True,
    "max_position_embeddings": 8192,
    "model_type": "llama",
    "neftune_noise_alpha": 0.0,
    "pad_token_id": 2,
    "qk_layer_norms": False,
    "rms_norm_eps": 1e-05,
    "rope_interleaved": False,
    "torch_dtype": "bfloat16",
    "use_resampler": False,
    "vocab_size": 49280,
}
_SIGLIP_BASE: dict[str, Any] = {
    "hidden_size": 768,
    "image_size": 512,
    "max_image_size": {"longest_edge": 512},
    "model_type": "smolvlm_vision",
    "num_attention_heads": 12,
    "patch_size": 16,
    "size": {"longest_edge": 2048},
    "tie_word_embeddings": False,
    "use_base_siglip": False,
}
_SIGLIP_SO400M: dict[str, Any] = {
    "hidden_size": 1152,
    "image_size": 384,
    "intermediate_size": 4304,
    "max_image_size": {"longest_edge": 384},
    "model_type": "smolvlm_vision",
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
    "size": {"longest_edge": 1920},
    "tie_word_embeddings": False,
    "use_base_siglip": False,
}


def _config(scale: int, text: dict[str, Any], vision: dict[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["SmolVLMForConditionalGeneration"],
        "image_token_id": 49190,
        "model_type": "smolvlm",
        "pad_token_id": 128002,
        "scale_factor": scale,
        "text_config": _TEXT | {"pixel_shuffle_factor": scale} | text,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.47.1",
        "use_cache": False,
        "use_reentrant_checkpointing": False,
        "vision_config": vision,
        "vocab_size": 49280,
    }


def _heads(heads: int, key_heads: int) -> dict[str, Any]:
    return {"num_attention_heads": heads, "num_key_value_heads": key_heads, "rope_theta": 100000}


CONFIGS = {
    "HuggingFaceTB/SmolVLM2-256M-Video-Instruct": _config(
        4,
        _heads(9, 3) | {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30},
        _SIGLIP_BASE,
    ),
    "HuggingFaceTB/SmolVLM2-500M-Video-Instruct": _config(
        4,
        _heads(15, 5) | {"hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32},
        _SIGLIP_BASE,
    ),
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct": _config(
        3,
        {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "rope_theta": 130000},
        _SIGLIP_SO400M,
    ),
}


def preprocessor(side: int) -> dict[str, Any]:
    """preprocessor_config.json of a tower that reads `side` pixels; transformers' video processor reads it too."""
    return {
        "do_convert_rgb": True,
        "do_image_splitting": True,
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "SmolVLMImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "max_image_size": {"longest_edge": side},
        "processor_class": "SmolVLMProcessor",
        "resample": 1,
        "rescale_factor": 0.00392156862745098,
        "size": {"longest_edge": 4 * side},
        "video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": side}},
    }


CHAT_TEMPLATE = (  # of the files: images only; transformers' processor brings another one for videos
    "{{- '<|im_start|>' -}}{%- for turn in messages -%}{{ turn.role | capitalize }}"
    "{{- ':' if turn.content[0].type == 'image' else ': ' }}"
    "{%- for part in turn.content -%}{%- if part.type == 'text' -%}{{ part.text }}"
    "{%- elif part.type == 'image' -%}{{ '<image>' }}{%- endif -%}{%- endfor -%}"
    "{{- '<end_of_utterance>\\n' -}}{%- endfor -%}{%- if add_generation_prompt -%}{{ 'Assistant:' }}{%- endif -%}"
)
_FIRST = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<repo_name>",
    "<reponame>",
    "<file_sep>",
    "<filename>",
    "<gh_stars>",
    "<issue_start>",
    "<issue_comment>",
    "<issue_closed>",
    "<jupyter_start>",
    "<jupyter_text>",
    "<jupyter_code>",
    "<jupyter_output>",
    "<jupyter_script>",
    "<empty_output>",
]
_LAST = [
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
    "<fake_token_around_image>",
    "<image>",
    *(f"<|reserved_special_token_{i}|>" for i in range(88)),
    "<end_of_utterance>",
]
_FIRST_OF_LAST = 49152


def reduced(name: str, n_layers: int) -> dict[str, Any]:
    """The configuration of `name` with `n_layers` in the decoder, 2 in the tower, few heads, nothing else changed."""
    config = copy.deepcopy(CONFIGS[name])
    text, vision = config["text_config"], config["vision_config"]
    head = vision["hidden_size"] // vision["num_attention_heads"]
    vision |= {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 2 * head, "intermediate_size": 152}
    is_grouped = "num_key_value_heads" in text
    text |= {"num_hidden_layers": n_layers, "num_attention_heads": 3, "hidden_size": 192, "intermediate_size": 176}
    text |= {"num_key_value_heads": 1 if is_grouped else 3}
    return config


def write_smolvlm(
    folder: Path, name: str = "HuggingFaceTB/SmolVLM2-256M-Video-Instruct", n_layers: int = 6, seed: int = 0
) -> SmolVLMForConditionalGeneration:
    """The files of `name` at reduced depth and width. Returns transformers' own model with the same weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = reduced(name, n_layers)
    model = SmolVLMForConditionalGeneration(SmolVLMConfig.from_dict(copy.deepcopy(config))).float()
    randomise(model, seed)
    patches = config["vision_config"]["image_size"] // config["vision_config"]["patch_size"]
    write_json(folder / "config.json", config)
    ends = {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 49279, "pad_token_id": 2}
    write_json(folder / "generation_config.json", {**ends, "transformers_version": "4.47.1"})
    write_json(folder / "preprocessor_config.json", preprocessor(config["vision_config"]["image_size"]))
    per_image = (patches // config["scale_factor"]) ** 2
    write_json(folder / "processor_config.json", {"image_seq_len": per_image, "processor_class": "SmolVLMProcessor"})
    write_json(folder / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    write_weights(folder, model.state_dict(), torch.float32)
    _write_tokenizer(folder)
    return model.eval()


def _write_tokenizer(folder: Path) -> None:
    """SmolLM2's byte-level tokenizer: digits one by one, special tokens at both ends of 49,280 ids."""
    alphabet = [*_FIRST, *sorted(bytes_to_unicode().values())]
    vocabulary, merges = byte_pairs([*WORDS, *QWEN2_WORDS], alphabet)
    fill(vocabulary, _FIRST_OF_LAST)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in [*_FIRST, *_LAST]])
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))
    added = {i: token for i, token in enumerate(_FIRST)} | {_FIRST_OF_LAST + i: token for i, token in enumerate(_LAST)}
    named = {
        "end_of_utterance_token": "<end_of_utterance>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "image_token": "<image>",
    }
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "added_tokens_decoder": {str(i): special(token) for i, token in added.items()},
            "additional_special_tokens": ["<fake_token_around_image>", "<image>", "<end_of_utterance>"],
            "bos_token": "<|im_start|>",
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<end_of_utterance>",
            "extra_special_tokens": named,
            **named,
            "legacy": False,
            "model_max_length": 8192,
            "pad_token": "<|im_end|>",
            "processor_class": "SmolVLMProcessor",
            "tokenizer_class": "GPT2Tokenizer",
            "truncation_side": "left",
            "unk_token": "<|endoftext|>",
            "vocab_size": 49152,
        },
    )
