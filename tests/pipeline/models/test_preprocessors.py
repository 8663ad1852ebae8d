"""Which of a checkpoint's files says how frames become pixels: transformers' own order."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.decoding.resize import Normalisation
from pipeline.models.checkpoints import resolve_model
from pipeline.types import ResizeRecipe
from tests.published.internvl import write_internvl
from tests.published.smolvlm import preprocessor, write_smolvlm

IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_the_file_for_videos_goes_first(tmp_path: Path) -> None:
    write_internvl(tmp_path)
    files = resolve_model(str(tmp_path), "model")
    assert (files.identity.resize, files.normalisation) == (ResizeRecipe(448, 448, 3), IMAGENET)
    of_videos = json.loads((tmp_path / "video_preprocessor_config.json").read_text())
    change(tmp_path / "preprocessor_config.json", size={"height": 99, "width": 99}, image_mean=[0.5] * 3)
    files = resolve_model(str(tmp_path), "model")
    assert (files.identity.resize, files.normalisation) == (ResizeRecipe(448, 448, 3), IMAGENET)
    nested = of_videos | {"size": {"height": 77, "width": 77}}
    change(tmp_path / "processor_config.json", video_processor=nested)  # as transformers 5 saves it
    assert resolve_model(str(tmp_path), "model").identity.resize == ResizeRecipe(77, 77, 3)
    (tmp_path / "processor_config.json").unlink()
    (tmp_path / "video_preprocessor_config.json").unlink()
    assert resolve_model(str(tmp_path), "model").identity.resize == ResizeRecipe(99, 99, 3)


@pytest.mark.parametrize(
    ("name", "side"),
    [("HuggingFaceTB/SmolVLM2-256M-Video-Instruct", 512), ("HuggingFaceTB/SmolVLM2-2.2B-Instruct", 384)],
)
def test_smolvlms_frames_pass_by_the_longest_edge_for_videos(name: str, side: int, tmp_path: Path) -> None:
    write_smolvlm(tmp_path, name)
    files = resolve_model(str(tmp_path), "model")
    assert files.identity.resize == ResizeRecipe(side, side, 1, longest_edge=side)
    assert files.normalisation == Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    resaved = {key: value for key, value in preprocessor(side).items() if key != "video_sampling"}
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(resaved | {"size": {"longest_edge": 640}}))
    assert resolve_model(str(tmp_path), "model").identity.resize == ResizeRecipe(side, side, 1, longest_edge=640)
