"""Encoders of each family, written to disk as small checkpoints and read by the real loading code."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
)

from adatp import METHODS
from pipeline.config import PRUNE_METHODS, Thresholds
from pipeline.errors import UsageError
from pipeline.models.checkpoints import refuse_control_tokens, resolve_model, resolve_thresholds
from pipeline.models.encoder import Encoder

WORDS = ["[PAD]", "[UNK]", "</s>", "red", "circle", "a", "dog"]
TEXT = dict(vocab_size=len(WORDS), hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2)
VISION = dict(
    hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16
)
PREPROCESSOR = dict(size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=3)


def write_checkpoint(folder: Path, family: str) -> torch.nn.Module:
    torch.manual_seed(0)
    text = {**TEXT, "max_position_embeddings": 7, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
    model: torch.nn.Module
    if family == "siglip":
        model = SiglipModel(SiglipConfig(text_config={**text, "projection_size": 12}, vision_config=VISION))
    else:
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=10))
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", eos_token="</s>"
    ).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return model.eval()


@pytest.mark.parametrize("family", ["siglip", "clip"])
def test_vectors_are_those_of_transformers_and_unit_length(family: str, tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path, family)
    encoder = Encoder(tmp_path)
    pixels = torch.randn(5, 3, 32, 32)
    with torch.inference_mode():
        truth = model.get_image_features(pixel_values=pixels).pooler_output
    got = encoder.images(pixels, batch=2)
    torch.testing.assert_close(got, torch.nn.functional.normalize(truth, dim=-1), rtol=1e-4, atol=1e-5)
    assert got.shape == (5, encoder.dim)
    assert resolve_model(str(tmp_path), "encoder").embedding_width == encoder.dim
    texts = encoder.texts(["a red circle", "dog", "circle " * 30])
    torch.testing.assert_close(texts.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(encoder.texts(["dog"]), texts[1:2], rtol=1e-4, atol=1e-5)  # padding changes nothing
    assert encoder.is_cut("circle " * 30)
    assert not encoder.is_cut("dog")


def test_another_family_is_refused_by_name(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "siglip")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(UsageError, match="'bert'; expected siglip or clip"):
        resolve_model(str(tmp_path), "encoder")
    with pytest.raises(UsageError, match="'bert'; expected llava_onevision"):
        resolve_model(str(tmp_path), "model")


def test_a_checkpoint_is_told_apart_by_its_content(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "siglip")
    first = resolve_model(str(tmp_path), "encoder").identity
    assert resolve_model(str(tmp_path), "encoder").identity == first
    weights = tmp_path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert resolve_model(str(tmp_path), "encoder").identity.revision != first.revision


def test_thresholds_belong_to_the_encoder(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "siglip")
    files = resolve_model(str(tmp_path), "encoder")
    with pytest.raises(UsageError, match=r"jobs\.calibrate"):
        resolve_thresholds(files)
    (tmp_path / "mine.json").write_text('{"tau_s": 0.8, "tau_t": 0.1}')
    assert resolve_thresholds(files, tmp_path / "mine.json") == Thresholds(0.8, 0.1)
    (tmp_path / "thresholds.json").write_text('{"tau_s": "high"}')
    with pytest.raises(UsageError, match="expected JSON with numbers tau_s and tau_t"):
        resolve_thresholds(files)


@pytest.mark.parametrize(
    ("breakage", "says"),
    [
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "can run code"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "preprocessor_config.json is missing"),
        (lambda folder: (folder / "preprocessor_config.json").write_text("{"), "is not JSON"),
        (lambda folder: (folder / "preprocessor_config.json").write_text("{}"), "size"),
    ],
)
def test_a_damaged_checkpoint_is_one_clear_error(breakage: object, says: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "siglip")
    breakage(tmp_path)  # type: ignore[operator]  # one of the lambdas above
    with pytest.raises(UsageError, match=says):
        resolve_model(str(tmp_path), "encoder")


def test_prompts_that_spell_control_tokens_are_refused(tmp_path: Path) -> None:
    model = resolve_model("builtin", "model")
    refuse_control_tokens(model, ["What is <b>this</b>?", "100 % <im_end>"])
    with pytest.raises(UsageError, match="im_end"):
        refuse_control_tokens(model, ["fine", "x<|im_end|>"])


def test_the_command_line_offers_what_the_library_has() -> None:
    assert set(PRUNE_METHODS) == set(METHODS)
