"""SigLIP, SigLIP2 and CLIP in their published layouts: the vectors that transformers' own classes give."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, CLIPTokenizer, Siglip2Tokenizer, SiglipTokenizer

from pipeline.models.checkpoints import PAPER_THRESHOLDS, known_thresholds, resolve_model
from pipeline.models.encoder import Encoder
from tests.published.encoders import ENCODERS, reduced, write_encoder
from tests.published.files import write_json

TEXTS = ["A Photo, of the RED circle!", "dog", "  what is this?  " * 40]


@pytest.mark.parametrize("name", ENCODERS)
def test_vectors_equal_those_of_transformers_own_classes(name: str, tmp_path: Path) -> None:
    theirs: Any = write_encoder(tmp_path, name)
    ours = Encoder(resolve_model(str(tmp_path), "encoder").path)
    size = theirs.config.vision_config.image_size
    pixels = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))
    tokens = published_tokens(name, tmp_path)
    with torch.inference_mode():
        images = theirs.get_image_features(pixel_values=pixels).pooler_output
        texts = theirs.get_text_features(**tokens).pooler_output
    for got, truth in ((ours.images(pixels), images), (ours.texts(TEXTS), texts)):
        torch.testing.assert_close(got, torch.nn.functional.normalize(truth, dim=-1), rtol=1e-4, atol=1e-5)
    assert ours.images(pixels).shape[1] == ours.dim == resolve_model(str(tmp_path), "encoder").embedding_width
    assert ours.is_cut(TEXTS[2])
    assert not ours.is_cut(TEXTS[0])


def published_tokens(name: str, folder: Path) -> dict[str, torch.Tensor]:
    """As each family's documentation says: SigLIP padded to 64, SigLIP2 in lower case too, CLIP to the longest."""
    if "clip" in name:
        made = CLIPTokenizer.from_pretrained(folder)(
            TEXTS, padding=True, truncation=True, max_length=77, return_tensors="pt"
        )
        return dict(made)
    kind = Siglip2Tokenizer if "siglip2" in name else SiglipTokenizer
    made = kind.from_pretrained(folder)(
        TEXTS, padding="max_length", truncation=True, max_length=64, return_tensors="pt"
    )
    return {"input_ids": made["input_ids"]}


def test_siglip_reads_words_without_case_and_punctuation(tmp_path: Path) -> None:
    write_encoder(tmp_path, "google/siglip-so400m-patch14-384")
    encoder = Encoder(tmp_path)
    assert isinstance(AutoTokenizer.from_pretrained(tmp_path), SiglipTokenizer)
    same = encoder.texts(["a photo of the red circle", "A photo, of the RED circle!"])
    torch.testing.assert_close(same[0], same[1])


def test_siglip2_reads_words_without_case(tmp_path: Path) -> None:
    write_encoder(tmp_path, "google/siglip2-base-patch16-224")
    same = Encoder(tmp_path).texts(["the red circle", "The RED circle"])
    torch.testing.assert_close(same[0], same[1])


@pytest.mark.parametrize("name", ENCODERS)
def test_every_number_of_the_published_configuration_is_in_effect(name: str, tmp_path: Path) -> None:
    write_encoder(tmp_path, name)
    effective = Encoder(tmp_path)._model.config.to_dict()
    source = reduced(ENCODERS[name], 2, 1)
    for tower in ("text_config", "vision_config"):
        left_out = {"dropout", "initializer_factor"}  # neither reaches arithmetic at inference
        wanted = {key: value for key, value in source[tower].items() if key not in left_out}
        assert {key: effective[tower].get(key) for key in wanted} == wanted
    if "clip" in name:
        assert effective["projection_dim"] == 512


@pytest.mark.parametrize(
    ("tower", "key", "value"),
    [
        ("text_config", "layer_norm_eps", 0.1),
        ("vision_config", "layer_norm_eps", 0.1),
        ("text_config", "hidden_act", "relu"),
        ("vision_config", "hidden_act", "relu"),
        ("text_config", "num_attention_heads", 2),
    ],
)
def test_a_number_changed_in_the_source_changes_the_vectors(
    tower: str, key: str, value: object, tmp_path: Path
) -> None:
    name = "google/siglip-so400m-patch14-384"
    write_encoder(tmp_path, name)
    pixels = torch.randn(1, 3, 384, 384, generator=torch.Generator().manual_seed(1))
    before = Encoder(tmp_path)
    config = copy.deepcopy(reduced(ENCODERS[name], 2, 1))
    config[tower][key] = value
    write_json(tmp_path / "config.json", config)
    after = Encoder(tmp_path)
    say = (lambda e: e.images(pixels)) if tower == "vision_config" else (lambda e: e.texts(["a red circle"]))
    assert (say(before) - say(after)).abs().max() > 1e-3


def test_a_local_copy_of_the_papers_encoder_has_the_papers_thresholds(tmp_path: Path) -> None:
    write_encoder(tmp_path, "google/siglip-so400m-patch14-384")
    assert known_thresholds(resolve_model(str(tmp_path), "encoder")) is None  # reduced: another encoder
    write_json(tmp_path / "config.json", ENCODERS["google/siglip-so400m-patch14-384"].config)
    assert known_thresholds(resolve_model(str(tmp_path), "encoder")) == PAPER_THRESHOLDS
    config = copy.deepcopy(ENCODERS["google/siglip-so400m-patch14-384"].config)
    config["text_config"]["vocab_size"] = 256000  # as SigLIP2's so400m of the same size
    write_json(tmp_path / "config.json", config)
    assert known_thresholds(resolve_model(str(tmp_path), "encoder")) is None
