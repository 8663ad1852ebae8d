"""The main job on local folders in the layouts people download: every video indexed, captioned, answered, audited."""

import json
from pathlib import Path

import pytest
import torch

from pipeline.planted.archive import render_archive
from tests.jobs.conftest import Ended, job
from tests.jobs.tables import records
from tests.published.encoders import ENCODERS, write_encoder
from tests.published.llava import LLAVAS, write_llava
from tests.published.qwen_vl import write_qwen_vl

DEFAULT_PAIR = ("llava-hf/llava-onevision-qwen2-0.5b-ov-hf", "google/siglip-base-patch16-224")
PAIRS = list(zip(LLAVAS, [*ENCODERS, *ENCODERS], strict=False))
"""Every Video LLM once, and every encoder at least once: sharded and not, tied and not, fp16 and bf16, no lm_head."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    render_archive(folder, seed=5, n_videos=2, seconds=12)
    return folder


def index_with(clips: Path, folder: Path, model: str, encoder: str) -> tuple[Ended, Path]:
    write_llava(folder / "model", model)
    write_encoder(folder / "encoder", encoder)
    output = folder / "index"
    names = ("--model", str(folder / "model"), "--encoder", str(folder / "encoder"))
    asked = ("--question", "what colour is the circle", "--max-new-tokens", "4", "--num-cpus", "2")
    return job("index", str(clips), "--output", str(output), *names, *asked), output


def check(ended: Ended, index: Path, method: str = "adatp") -> None:
    assert ended.code == 0, ended.err
    assert [v["status"] for v in records(index, "videos").values()] == ["indexed", "indexed"]
    captions, answers = records(index, "captions").values(), records(index, "answers").values()
    assert len(captions) == len(answers) == 2
    assert all(row["prune_method"] == method and row["llm_flops_ratio"] < 1 for row in (*captions, *answers))
    assert job("verify", "--index", str(index)).code == 0


def test_the_default_pairs_layouts_index_an_archive(clips: Path, tmp_path: Path) -> None:
    ended, index = index_with(clips, tmp_path, *DEFAULT_PAIR)
    check(ended, index)
    kept = json.loads((index / "_state" / "thresholds.json").read_text())
    (values,) = kept.values()
    assert values["origin"] == "measured on 22 neighbouring frames of 2 videos"
    assert "its similarity thresholds are unknown; measuring them on 2 videos" in ended.err
    again = job("index", str(clips), "--output", str(index), *_same(tmp_path), "--num-cpus", "2")
    assert again.code == 0, again.err
    assert "measuring" not in again.err
    assert "2 unchanged" in again.err


def _same(folder: Path) -> tuple[str, ...]:
    question = ("--question", "what colour is the circle", "--max-new-tokens", "4")
    return ("--model", str(folder / "model"), "--encoder", str(folder / "encoder"), *question)


@pytest.mark.nightly
@pytest.mark.parametrize(("model", "encoder"), PAIRS)
def test_every_published_layout_indexes_an_archive(model: str, encoder: str, clips: Path, tmp_path: Path) -> None:
    check(*index_with(clips, tmp_path, model, encoder))


@pytest.mark.nightly
@pytest.mark.parametrize("model", ["Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen3-VL-4B-Instruct"])
def test_qwen_indexes_an_archive(model: str, clips: Path, tmp_path: Path) -> None:
    """Frames that keep their shape, two to a step, with their times; questions on the whole video reuse clips."""
    write_qwen_vl(tmp_path / "model", model, dtype=torch.bfloat16, n_shards=2)
    write_encoder(tmp_path / "encoder", "google/siglip-base-patch16-224")
    asked = ("--question", "what colour is the circle", "--max-new-tokens", "4", "--num-cpus", "2")
    names = ("--model", str(tmp_path / "model"), "--encoder", str(tmp_path / "encoder"))
    check(job("index", str(clips), "--output", str(tmp_path / "index"), *names, *asked), tmp_path / "index")


@pytest.mark.nightly
@pytest.mark.timeout(1800)  # a tower of true width, on a CPU
def test_the_default_pair_at_true_width_and_two_layers(clips: Path, tmp_path: Path) -> None:
    write_llava(tmp_path / "model", DEFAULT_PAIR[0], n_layers=4, head_dim=None)
    write_encoder(tmp_path / "encoder", DEFAULT_PAIR[1], heads=None)
    asked = ("--question", "what colour is the circle", "--max-new-tokens", "4", "--num-cpus", "2")
    names = ("--model", str(tmp_path / "model"), "--encoder", str(tmp_path / "encoder"))
    ended = job("index", str(clips), "--output", str(tmp_path / "index"), *names, *asked)
    check(ended, tmp_path / "index")
