"""The two small models that ship as `builtin`: their shapes, tokenizer and files, in transformers' own classes.

model/    LlavaOnevisionForConditionalGeneration: SigLIP tower, projector, 2x pooling, newline, Qwen2 decoder.
encoder/  SiglipModel with the same tower, a pooling head and a text tower.
"""

import json
import math
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
)

from pipeline.planted import questions, vocabulary
from pipeline.planted.captions import CAPTION_PROMPTS

TEXT_LENGTH = 32  # of the encoder's text tower
MAX_POSITIONS = 2048
SPECIAL = ("<pad>", "<unk>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")
_EXTRA_WORDS = (  # beyond what questions and captions need, so that a plain request is not all unknown
    "a an and then nothing small medium large digit moving changing to flashing yes no room object thing "
    "user assistant up down left right , . ? : ; ! ' - the is are was in on at of with which what where "
    "who why how when there any does do this that it clip video scene scenes frame see show shows list "
    "name tell me describe caption briefly short happens happening happen colours colors shapes digits "
    "rooms objects things first last before after between from b c d e number many background near many "
    "answer option letter sentence one word please give best only system you helpful"
)

CHAT_TEMPLATE = (
    # A system turn is left out: the model was trained without one.
    "{% for message in messages if message['role'] != 'system' %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'video' %}{{ '<video>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def words() -> list[str]:
    """The closed vocabulary, specials first, in a fixed order."""
    listed = [
        *vocabulary.KINDS, *vocabulary.COLOURS, *vocabulary.TONES, *vocabulary.TEXTURES, *vocabulary.SIZES,
        *vocabulary.DIRECTIONS, *vocabulary.COUNTS, *vocabulary.QUARTERS, *questions.words(), *_EXTRA_WORDS.split(),
    ]  # fmt: skip
    for prompt in CAPTION_PROMPTS:
        listed += prompt.lower().rstrip(".?").split()
    return [*SPECIAL, *dict.fromkeys(listed)]


def tokenizer(chat: bool) -> PreTrainedTokenizerFast:
    """Word level, lower case, punctuation apart. `chat`: the model's; otherwise the encoder's, padded to one length."""
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words())}, unk_token="<unk>"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    special = {"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "<|im_end|>"}
    if chat:
        return PreTrainedTokenizerFast(
            tokenizer_object=inner, **special, chat_template=CHAT_TEMPLATE, model_max_length=MAX_POSITIONS,
            extra_special_tokens={"bos_of_turn": "<|im_start|>", "image_token": "<image>", "video_token": "<video>"},
        )  # fmt: skip
    end = words().index("<|im_end|>")
    inner.post_processor = processors.TemplateProcessing(single="$A <|im_end|>", special_tokens=[("<|im_end|>", end)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, **special, model_max_length=TEXT_LENGTH, model_input_names=["input_ids"]
    )


def _vision(use_head: bool) -> dict[str, object]:
    return {
        "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4,
        "image_size": vocabulary.FRAME_PX, "patch_size": 8, "vision_use_head": use_head,
    }  # fmt: skip


def new_encoder() -> SiglipModel:
    """Untrained, fp32."""
    text = {
        "vocab_size": len(words()), "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": TEXT_LENGTH, "projection_size": 128,
        "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
    }  # fmt: skip
    encoder = SiglipModel(SiglipConfig(text_config=text, vision_config=_vision(use_head=True)))
    with torch.no_grad():  # as SigLIP begins: temperature 10, and a bias for the few positives among many pairs
        encoder.logit_scale.fill_(math.log(10.0))
        encoder.logit_bias.fill_(-6.0)
    return encoder


def new_model() -> LlavaOnevisionForConditionalGeneration:
    """Untrained, fp32."""
    text = Qwen2Config(
        vocab_size=len(words()), hidden_size=192, intermediate_size=512, num_hidden_layers=8, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=MAX_POSITIONS, rope_theta=10_000.0, tie_word_embeddings=True,
        pad_token_id=0, bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**_vision(use_head=False)), text_config=text, tie_word_embeddings=True,
        image_token_index=words().index("<image>"), video_token_index=words().index("<video>"),
        vision_feature_layer=-1, vision_feature_select_strategy="full",
        image_grid_pinpoints=[[vocabulary.FRAME_PX, vocabulary.FRAME_PX]],
    )  # fmt: skip
    config.pad_token_id, config.bos_token_id, config.eos_token_id = 0, 2, 3
    return LlavaOnevisionForConditionalGeneration(config)


def _preprocessor(kind: str) -> dict[str, object]:
    side = vocabulary.FRAME_PX
    return {
        kind: "SiglipImageProcessor" if kind == "image_processor_type" else "LlavaOnevisionVideoProcessor",
        "do_resize": True, "size": {"height": side, "width": side}, "resample": 3, "do_rescale": True,
        "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
        "do_convert_rgb": True,
    }  # fmt: skip


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def save_encoder(encoder: SiglipModel, folder: Path, thresholds: dict[str, float]) -> None:
    """`encoder` (fp32) and all that loading it needs; `thresholds` are AdaTP's tau_s and tau_t for it."""
    encoder.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    tokenizer(chat=False).save_pretrained(folder)
    _write_json(folder / "preprocessor_config.json", _preprocessor("image_processor_type"))
    _write_json(folder / "thresholds.json", thresholds)


def save_model(model: LlavaOnevisionForConditionalGeneration, folder: Path) -> None:
    """`model` rounded to bfloat16 and all that loading it needs."""
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 3, 0
    rounded = {name: value.detach().to(torch.bfloat16) for name, value in model.state_dict().items()}
    rounded.pop("lm_head.weight", None)  # tied
    config_dtype = model.config.dtype
    model.config.dtype = torch.bfloat16
    model.save_pretrained(folder, state_dict=rounded)
    (folder / "model.safetensors").chmod(0o644)
    model.config.dtype = config_dtype
    tokenizer(chat=True).save_pretrained(folder)
    _write_json(folder / "preprocessor_config.json", _preprocessor("image_processor_type"))
    _write_json(folder / "video_preprocessor_config.json", _preprocessor("video_processor_type"))
    _write_json(
        folder / "processor_config.json",
        {
            "processor_class": "LlavaOnevisionProcessor",
            "num_image_tokens": 16,
            "vision_feature_select_strategy": "full",
        },
    )
