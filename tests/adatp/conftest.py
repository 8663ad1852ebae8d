"""One small random model for most tests: 5 x 5 patches pooled to 9 tokens a frame, 8 layers, 6 query heads on 2."""

import pytest
import torch

import adatp
from tests.adatp.checkpoints import write_lmms_lab, write_onevision


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Models this small only lose time to threads that wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def onevision(tmp_path_factory: pytest.TempPathFactory) -> adatp.VideoLLM:
    return adatp.load(write_onevision(tmp_path_factory.mktemp("onevision") / "model"))


@pytest.fixture(scope="session")
def llava_video(tmp_path_factory: pytest.TempPathFactory) -> adatp.VideoLLM:
    return adatp.load(write_lmms_lab(tmp_path_factory.mktemp("llava_video") / "model"))


@pytest.fixture
def pixels() -> torch.Tensor:
    """16 frames: scenes of 5, 3 and 8, nearly static inside."""
    generator = torch.Generator().manual_seed(11)
    scenes = torch.randn(3, 3, 40, 40, generator=generator).repeat_interleave(torch.tensor([5, 3, 8]), 0)
    return scenes + 0.3 * torch.randn(16, 3, 40, 40, generator=generator)
