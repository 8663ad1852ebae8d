"""The main job on local folders of families beside LLaVA, in their published layouts."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.jobs.conftest import job
from tests.jobs.test_published_models import check, clips
from tests.published.encoders import write_encoder
from tests.published.internvl import write_internvl
from tests.published.smolvlm import write_smolvlm

__all__ = ["clips"]  # a fixture
FAMILIES: dict[str, Callable[[Path], object]] = {
    "SmolVLM2-256M": write_smolvlm,
    "SmolVLM2-2.2B": partial(write_smolvlm, name="HuggingFaceTB/SmolVLM2-2.2B-Instruct"),
    "InternVL3-1B": write_internvl,
    "InternVL3_5-2B": partial(write_internvl, name="OpenGVLab/InternVL3_5-2B-HF"),
    "InternVL3-38B": partial(write_internvl, name="OpenGVLab/InternVL3-38B-hf"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if "256M" in name else pytest.mark.nightly) for name in FAMILIES]
)
def test_a_family_indexes_an_archive(name: str, clips: Path, tmp_path: Path) -> None:
    FAMILIES[name](tmp_path / "model")
    write_encoder(tmp_path / "encoder", "google/siglip-base-patch16-224")
    names = ("--model", str(tmp_path / "model"), "--encoder", str(tmp_path / "encoder"))
    asked = ("--question", "what colour is the circle", "--max-new-tokens", "4", "--num-cpus", "2")
    ended = job("index", str(clips), "--output", str(tmp_path / "index"), *names, *asked)
    check(ended, tmp_path / "index")


def test_the_original_layout_is_refused_with_the_name_of_the_one_that_is_read(clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "InternVL3-8B"
    write_smolvlm(folder)
    config = {"model_type": "internvl_chat", "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"}}
    (folder / "config.json").write_text(json.dumps(config))
    ended = job("index", str(clips), "--output", str(tmp_path / "index"), "--model", str(folder))
    assert ended.code == 2
    assert "needs code of its own, which is not run; expected OpenGVLab/InternVL3-8B-hf" in ended.err
    assert not (tmp_path / "index").exists()
