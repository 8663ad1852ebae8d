"""Qwen2.5-VL and Qwen3-VL as published.

Sources: config.json of Qwen/Qwen2.5-VL-3B-Instruct and its 7B as model cards and issues quote it (a whole copy stands
under the heading "Qwen/Qwen2.5-VL-3B-Instruct" in a public collection of model prints); of Qwen/Qwen3-VL-4B-Instruct as
modelscope/DiffSynth-Studio's Wan encoder holds it. Image processors: huggingface/transformers' documentation and the
comment in a public converter of GGUF files that names the checkpoints' own preprocessor_config.json. Special tokens:
Qwen2.5's tokenizer_config.json. The chat templates are written anew and render the same text for a video and a
question. Only depth of the decoder, widths and numbers of heads are reduced; head sizes stay, as do the tower's depths
where block indexes count in them.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, Qwen2_5_VLForConditionalGeneration, Qwen3VLForConditionalGeneration

from tests.published.files import randomise, write_json, write_weights
from tests.published.vocabularies import write_qwen2

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
SPECIALS = [  # ids 151643 to 151664
    *["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"],
    *["<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"],
    *["<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>"],
    *["<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"],
]
_TURNS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
)

CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-VL-3B-Instruct": {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "vision_start_token_id": 151652,
        "vision_end_token_id": 151653,
        "vision_token_id": 151654,
        "image_token_id": 151655,
        "video_token_id": 151656,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "initializer_range": 0.02,
        "intermediate_size": 11008,
        "max_position_embeddings": 128000,
        "max_window_layers": 70,
        "model_type": "qwen2_5_vl",
        "num_attention_heads": 16,
        "num_hidden_layers": 36,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.41.2",
        "use_cache": True,
        "use_sliding_window": False,
        "vision_config": {
            "depth": 32,
            "hidden_act": "silu",
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "in_chans": 3,
            "out_hidden_size": 2048,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "tokens_per_second": 2,
            "temporal_patch_size": 2,
        },
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "vocab_size": 151936,
    },
    "Qwen/Qwen3-VL-4B-Instruct": {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "image_token_id": 151655,
        "model_type": "qwen3_vl",
        "text_config": {
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": 151643,
            "dtype": "bfloat16",
            "eos_token_id": 151645,
            "head_dim": 128,
            "hidden_act": "silu",
            "hidden_size": 2560,
            "initializer_range": 0.02,
            "intermediate_size": 9728,
            "max_position_embeddings": 262144,
            "model_type": "qwen3_vl_text",
            "num_attention_heads": 32,
            "num_hidden_layers": 36,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-06,
            "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
            "rope_theta": 5000000,
            "tie_word_embeddings": True,
            "use_cache": True,
            "vocab_size": 151936,
        },
        "tie_word_embeddings": True,
        "transformers_version": "4.57.0.dev0",
        "video_token_id": 151656,
        "vision_config": {
            "deepstack_visual_indexes": [5, 11, 17],
            "depth": 24,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": 1024,
            "in_channels": 3,
            "initializer_range": 0.02,
            "intermediate_size": 4096,
            "model_type": "qwen3_vl",
            "num_heads": 16,
            "num_position_embeddings": 2304,
            "out_hidden_size": 2560,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        "vision_end_token_id": 151653,
        "vision_start_token_id": 151652,
    },
}
CONFIGS["Qwen/Qwen2.5-VL-7B-Instruct"] = CONFIGS["Qwen/Qwen2.5-VL-3B-Instruct"] | {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "max_window_layers": 28,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
    "vision_config": CONFIGS["Qwen/Qwen2.5-VL-3B-Instruct"]["vision_config"] | {"out_hidden_size": 3584},
    "vocab_size": 152064,
}
PREPROCESSORS: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {
        "image_mean": CLIP_MEAN,
        "image_processor_type": "Qwen2VLImageProcessor",
        "image_std": CLIP_STD,
        "max_pixels": 12845056,
        "merge_size": 2,
        "min_pixels": 3136,
        "patch_size": 14,
        "processor_class": "Qwen2_5_VLProcessor",
        "temporal_patch_size": 2,
    },
    "qwen3_vl": {
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "image_std": [0.5, 0.5, 0.5],
        "merge_size": 2,
        "patch_size": 16,
        "processor_class": "Qwen3VLProcessor",
        "size": {"longest_edge": 16777216, "shortest_edge": 65536},
        "temporal_patch_size": 2,
    },
}
VIDEO_PREPROCESSOR: dict[str, Any] = {  # Qwen3-VL alone has one
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "merge_size": 2,
    "patch_size": 16,
    "processor_class": "Qwen3VLProcessor",
    "size": {"longest_edge": 25165824, "shortest_edge": 4096},
    "temporal_patch_size": 2,
    "video_processor_type": "Qwen3VLVideoProcessor",
}


def reduced(config: dict[str, Any], n_layers: int) -> dict[str, Any]:
    """The published numbers at a width that a test can afford."""
    config = copy.deepcopy(config)
    text = config.get("text_config", config)
    text |= {"hidden_size": 256, "intermediate_size": 72, "num_hidden_layers": n_layers}  # heads of 128, as published
    text |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    if config["model_type"] == "qwen3_vl":
        text |= {"hidden_size": 40, "num_attention_heads": 4, "num_key_value_heads": 2}
    vision = config["vision_config"]
    head = vision["hidden_size"] // vision["num_heads"]
    vision |= {"hidden_size": 2 * head, "num_heads": 2, "intermediate_size": 52, "out_hidden_size": text["hidden_size"]}
    return config


def write_qwen_vl(
    folder: Path, name: str, seed: int = 0, n_layers: int = 8, dtype: torch.dtype = torch.float32, n_shards: int = 1
) -> Path:
    """The checkpoint `name` with random weights, under the key names of its time."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = reduced(CONFIGS[name], n_layers)
    kind: str = raw["model_type"]
    write_json(folder / "config.json", raw)
    write_json(folder / "preprocessor_config.json", PREPROCESSORS[kind])
    write_json(folder / "generation_config.json", {"bos_token_id": 151643, "eos_token_id": [151645, 151643]})
    write_qwen2(folder, SPECIALS, model_max_length=131072)
    if kind == "qwen2_5_vl":
        write_json(folder / "chat_template.json", {"chat_template": _DEFAULT_SYSTEM + _TURNS})
    else:
        write_json(folder / "video_preprocessor_config.json", VIDEO_PREPROCESSOR)
        (folder / "chat_template.jinja").write_text(_TURNS)
    with torch.device("meta"):
        model = transformers_model(folder)
    model.to_empty(device="cpu")  # its own initialisation would be thrown away
    randomise(model, seed)
    tensors = {
        _published_name(name, kind): tensor
        for name, tensor in model.state_dict().items()
        if not (raw["tie_word_embeddings"] and name == "lm_head.weight")
    }
    write_weights(folder, tensors, dtype, n_shards)
    return folder


def transformers_model(folder: Path) -> Any:
    """transformers' own class for the configuration in `folder`, not loaded."""
    config = AutoConfig.from_pretrained(folder)
    classes = {"qwen2_5_vl": Qwen2_5_VLForConditionalGeneration, "qwen3_vl": Qwen3VLForConditionalGeneration}
    return classes[config.model_type](config)


def _published_name(name: str, kind: str) -> str:
    """Qwen2.5-VL was saved before transformers nested tower and decoder under `model.`."""
    if kind == "qwen3_vl":
        return name
    return name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")
