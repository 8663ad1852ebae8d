"""Tiny random checkpoints in both layouts, with a tokenizer made on the spot. Sizes are distinct on purpose."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

SENTENCES = "system user assistant You are a helpful . Describe the video What colour is it ? red blue green very"
WORDS = [*SENTENCES.split(), "\n"]  # a newline is a word of its own
CONTROLS = ["<|im_start|>", "<|im_end|>", "<video>"]
TEMPLATE = (  # content as parts, like llava-hf's
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'video' %}{{ '<video>\\n' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

LMMS_LAB_ONEVISION_7B: dict[str, Any] = {
    # lmms-lab/llava-onevision-qwen2-7b-ov, config.json; a copy stands in PaddlePaddle/PaddleMIX's tests of llava_qwen
    "architectures": ["LlavaQwenForCausalLM"],
    "mm_newline_position": "one_token",
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 3584,
    "image_token_index": 151646,
    "image_aspect_ratio": "anyres_max_9",
    "image_crop_resolution": None,
    "image_grid_pinpoints": [[h, w] for h in range(384, 2305, 384) for w in range(384, 2305, 384)],
    "image_split_resolution": None,
    "initializer_range": 0.02,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "mm_hidden_size": 1152,
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
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "pos_skipping_range": 4096,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "tie_word_embeddings": False,
    "tokenizer_model_max_length": 32768,
    "tokenizer_padding_side": "right",
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.0.dev0",
    "use_cache": True,
    "use_mm_proj": True,
    "use_pos_skipping": False,
    "use_sliding_window": False,
    "vision_tower_pretrained": None,
    "vocab_size": 152064,
}
REDUCED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")


def tokenizer(template: str | None = TEMPLATE, controls: list[str] = CONTROLS) -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(["[UNK]", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Punctuation()]
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", eos_token="<|im_end|>", additional_special_tokens=controls
    )
    made.chat_template = template
    return made


def onevision_config(
    tok: PreTrainedTokenizerFast, n_layers: int = 8, image_size: int = 40, patch_size: int = 8, tied: bool = False
) -> LlavaOnevisionConfig:
    """A 5 x 5 patch grid: bilinear pooling gives 3 x 3, average pooling 2 x 2. 6 query heads on 2 key heads."""
    return LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=36,
            intermediate_size=52,
            num_hidden_layers=3,
            num_attention_heads=3,
            image_size=image_size,
            patch_size=patch_size,
            vision_use_head=False,
        ),
        text_config=Qwen2Config(
            hidden_size=48,
            intermediate_size=76,
            num_hidden_layers=n_layers,
            num_attention_heads=6,
            num_key_value_heads=2,
            vocab_size=len(tok),
            max_position_embeddings=4096,
            tie_word_embeddings=tied,
            rope_theta=1_000_000.0,
            bos_token_id=None,
            eos_token_id=tok.convert_tokens_to_ids("<|im_end|>"),
        ),
        image_token_index=len(tok) - 1,
        video_token_index=tok.convert_tokens_to_ids("<video>"),
        tie_word_embeddings=tied,
    )


def random_model(config: LlavaOnevisionConfig, seed: int = 0) -> LlavaOnevisionForConditionalGeneration:
    """Random weights, large enough that attention is far from uniform and different tokens win."""
    torch.manual_seed(seed)
    model = LlavaOnevisionForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, weight.shape[-1] ** -0.5 * (1.7 if "proj" in name else 1.0))
            elif "norm" not in name:
                weight.normal_(0, 0.3)
    return model


def write_onevision(folder: Path, seed: int = 0, **sizes: Any) -> Path:
    """transformers' layout."""
    tok = tokenizer()
    random_model(onevision_config(tok, **sizes), seed).save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


def write_lmms_lab(folder: Path, seed: int = 0, newline: str = "grid", marked_tied: bool = True, **sizes: Any) -> Path:
    """lmms-lab's original layout, key by key: LLaVA-Video where `newline` is "grid", OneVision where "one_token".

    A tied model has no lm_head in its file; without `marked_tied` config.json says all the same that it is untied, as
    the published 0.5B does (LLaVA-VL/LLaVA-NeXT issue 315).
    """
    folder.mkdir(parents=True, exist_ok=True)
    tok = tokenizer(template=None, controls=CONTROLS[:2])
    config = onevision_config(tokenizer(), **sizes)
    tied = config.tie_word_embeddings
    config.text_config.vocab_size = len(tok)
    model = random_model(config, seed)
    renamed = {}
    for name, tensor in model.state_dict().items():
        for ours, theirs in (
            ("model.vision_tower.", "model.vision_tower.vision_tower.vision_model."),
            ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
            ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
            ("model.language_model.", "model."),
        ):
            if name.startswith(ours):
                name = theirs + name.removeprefix(ours)
                break
        if not (tied and name == "lm_head.weight"):
            renamed[name] = tensor.clone().contiguous()
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    text = config.text_config
    raw = LMMS_LAB_ONEVISION_7B | {
        **{key: getattr(text, key) for key in REDUCED},
        "mm_newline_position": newline,
        "mm_vision_tower": "vision",
        "mm_hidden_size": 36,
        "tie_word_embeddings": tied and marked_tied,
        "vision_config": {"num_attention_heads": 3},
    }
    (folder / "config.json").write_text(json.dumps(raw))
    tok.save_pretrained(folder)
    return folder
