"""What does not load is refused in one line, before a worker starts and without its weights being read."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from pipeline.errors import UsageError
from pipeline.models.checkpoints import resolve_model
from pipeline.models.ready import make_ready
from pipeline.models.try_loading import _fault
from tests.adatp.checkpoints import write_lmms_lab, write_onevision
from tests.published.encoders import ENCODERS, write_encoder
from tests.published.files import write_json, write_weights

SIGLIP = "google/siglip-so400m-patch14-384"


def silent(line: str) -> None:
    pass


def fault(folder: Path, role: str = "encoder") -> str | None:
    files = resolve_model(str(folder), role)
    shapes = {name: list(shape) for name, shape in files.weights().shapes.items()}
    return _fault({"role": role, "path": str(files.path), "shapes": shapes})


def test_every_published_encoder_and_both_llava_layouts_are_ready(tmp_path: Path) -> None:
    for name in ENCODERS:
        write_encoder(tmp_path / name, name)
    write_onevision(tmp_path / "hf")
    write_json(tmp_path / "hf" / "preprocessor_config.json", ENCODERS[SIGLIP].preprocessor)
    write_lmms_lab(tmp_path / "lmms")
    checkpoints = [resolve_model(str(tmp_path / name), "encoder") for name in ENCODERS]
    make_ready([*checkpoints, *(resolve_model(str(tmp_path / name), "model") for name in ("hf", "lmms"))], silent)


def test_the_process_that_tries_names_the_checkpoint_that_does_not_load(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    for folder in (good, bad):
        write_encoder(folder, SIGLIP)
    (bad / "tokenizer_config.json").write_text("[]")
    with pytest.raises(UsageError, match=rf"^--encoder {bad}: [^\n]+$"):
        make_ready([resolve_model(str(folder), "encoder") for folder in (good, bad)], silent)


def drop_a_key(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["text_model.head.weight"]
    save_file(tensors, folder / "model.safetensors")


def add_a_key(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"text_model.adapter": tensors["logit_scale"].clone()}, folder / "model.safetensors")


def widen_the_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["intermediate_size"] = 160
    write_json(folder / "config.json", config)


def another_tokenizer(folder: Path) -> None:
    write_encoder(folder / "clip", "openai/clip-vit-base-patch32")
    for path in folder.glob("spiece.model"):
        path.unlink()
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(folder / "clip" / name, folder / name)


@pytest.mark.parametrize(
    ("breakage", "says"),
    [
        (drop_a_key, "1 missing: text_model.head.weight"),
        (add_a_key, "1 surplus: text_model.adapter"),
        (widen_the_config, "wrongly shaped"),
        (another_tokenizer, "token ids up to 49407, but its text tower embeds 32000"),
    ],
)
def test_weights_and_tokenizers_of_another_model_are_refused(
    breakage: Callable[[Path], None], says: str, tmp_path: Path
) -> None:
    write_encoder(tmp_path, SIGLIP)
    assert fault(tmp_path) is None
    breakage(tmp_path)
    found = fault(tmp_path)
    assert found is not None
    assert says in found
    assert "\n" not in found


def test_a_missing_sentencepiece_is_named_with_the_command_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_encoder(tmp_path, SIGLIP)
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    found = fault(tmp_path)
    assert found is not None
    assert "run `pip install sentencepiece`" in found


def cut_a_shard(folder: Path) -> None:
    path = folder / "model-00002-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def cut_a_header(folder: Path) -> None:
    path = folder / "model-00002-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def lose_a_shard(folder: Path) -> None:
    (folder / "model-00003-of-00003.safetensors").unlink()


def reach_outside(folder: Path) -> None:
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"a": "../secret.safetensors"}})


def only_pickles(folder: Path) -> None:
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")


def remote_code(folder: Path) -> None:
    write_json(folder / "config.json", {"model_type": "jina_clip", "auto_map": {"AutoModel": "modeling.Model"}})


@pytest.mark.parametrize(
    ("breakage", "says"),
    [
        (cut_a_shard, r"model-00002-of-00003\.safetensors has \d+ bytes, but its header says \d+; fetch it again"),
        (cut_a_header, "damaged or cut short"),
        (lose_a_shard, r"1 of 3 weight files are missing: model-00003-of-00003\.safetensors"),
        (reach_outside, "expected a .* file beside it"),
        (only_pickles, r"found only pytorch_model\.bin, which can run code when read; expected \*\.safetensors"),
        (remote_code, "'jina_clip'; expected siglip or clip; it needs code of its own, which is not run"),
    ],
)
def test_damaged_files_are_named_without_torch(breakage: Callable[[Path], None], says: str, tmp_path: Path) -> None:
    write_encoder(tmp_path, SIGLIP)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    write_weights(tmp_path, tensors, tensors["logit_scale"].dtype, n_shards=3)
    assert resolve_model(str(tmp_path), "encoder").weights().shapes.keys() == tensors.keys()
    breakage(tmp_path)
    with pytest.raises(UsageError, match=rf"^--encoder {tmp_path}: [^\n]*{says}"):
        resolve_model(str(tmp_path), "encoder")
