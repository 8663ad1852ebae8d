"""jobs.doctor on the models people bring: both at work on a worker, and one line for each fault."""

import shutil
from pathlib import Path

import pytest

from tests.jobs.conftest import Ended, job
from tests.published.encoders import write_encoder
from tests.published.files import write_json
from tests.published.llava import write_llava

MODEL, ENCODER = "llava-hf/llava-onevision-qwen2-7b-ov-hf", "google/siglip-base-patch16-224"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_llava(folder / "model", MODEL)
    write_encoder(folder / "encoder", ENCODER)
    return folder


def visit(folder: Path, env: dict[str, str] | None = None) -> Ended:
    names = ("--model", str(folder / "model"), "--encoder", str(folder / "encoder"))
    return job("doctor", *names, "--num-cpus", "2", env=env)


def faults(ended: Ended) -> list[str]:
    assert "Traceback" not in ended.err
    return [line for line in ended.out.splitlines() if line.startswith("NO ")]


@pytest.mark.nightly
def test_both_models_work_on_a_worker(models: Path) -> None:
    ended = visit(models)
    assert ended.code == 0, ended.out + ended.err
    (encoder,) = (line for line in ended.out.splitlines() if "encoder at work" in line)
    (model,) = (line for line in ended.out.splitlines() if "model at work" in line)
    assert "a frame" in encoder
    assert "a text" in encoder
    assert "process memory" in encoder
    assert "8 tokens unpruned" in model
    assert "8 tokens pruned" in model
    assert "of 1568 visual tokens a layer when pruned" in model


def hide_sentencepiece(folder: Path) -> dict[str, str]:
    (folder / "hidden" / "sentencepiece").mkdir(parents=True)
    (folder / "hidden" / "sentencepiece" / "__init__.py").write_text("raise ImportError('hidden')\n")
    return {"PYTHONPATH": str(folder / "hidden")}


def cut_a_shard(folder: Path) -> None:
    path = folder / "model" / "model-00003-of-00004.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def wrong_tokenizer(folder: Path) -> None:
    for path in [*(folder / "model").glob("*.json"), folder / "model" / "merges.txt"]:
        if path.name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json"):
            path.unlink()
    write_encoder(folder / "clip", "openai/clip-vit-base-patch32")
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(folder / "clip" / name, folder / "model" / name)


def unsupported_architecture(folder: Path) -> None:
    write_json(folder / "model" / "config.json", {"model_type": "mllama", "architectures": ["Mllama"]})


@pytest.mark.parametrize(
    ("breakage", "says"),
    [
        (hide_sentencepiece, r"needs the package sentencepiece, which is missing: run `pip install sentencepiece`"),
        (cut_a_shard, "model-00003-of-00004.safetensors has"),
        (wrong_tokenizer, "its tokenizer has 49408 tokens, but config.json names token 151647 for a video"),
        (unsupported_architecture, "its model_type is 'mllama'; expected"),
    ],
)
def test_each_fault_is_one_line(breakage: object, says: str, models: Path, tmp_path: Path) -> None:
    for name in ("model", "encoder"):
        shutil.copytree(models / name, tmp_path / name)
    ended = visit(tmp_path, breakage(tmp_path))  # type: ignore[operator]  # one of the functions above
    (fault,) = faults(ended)
    assert says in fault
    assert ended.code == 1
    assert "1 of these must be put right" in ended.out
