"""Frames are encoded once, and with representative frames only those are that some prompt needs."""

from typing import Any

import numpy as np
import pytest
import torch

import adatp
from pipeline.config import Thresholds
from pipeline.decoding.resize import Normalisation
from pipeline.describing.embed import embed_clips
from pipeline.describing.encoded import EncodedFrames
from pipeline.describing.video_llm import Describer, Prompting
from pipeline.errors import NotFinite
from pipeline.models.pixels import DeviceFrames
from pipeline.types import ClipFrames, Target
from tests.adatp.checkpoints import write_onevision

CAPTION = Target.caption("Describe the video")
HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> adatp.VideoLLM:
    return adatp.load(write_onevision(tmp_path_factory.mktemp("model")))


class Counting(Describer):
    """Counts the frames that are encoded."""

    n_frames = 0

    def encode(self, clip: ClipFrames, pixels: DeviceFrames, frames: Any = None) -> adatp.Visual:
        self.n_frames += len(clip.pts_s) if frames is None else len(frames)
        return super().encode(clip, pixels, frames)


def describer(model: adatp.VideoLLM, prune: str) -> Counting:
    prompting = Prompting(prune, 1.0, 4, {CAPTION: "Describe the video"})
    return Counting(model, HALF, Thresholds(0.95, 0.05), 0.0, prompting)


def clips(n_clips: int, n: int, side: int = 40) -> list[ClipFrames]:
    rng = np.random.default_rng(2)
    return [
        ClipFrames(
            at, at * n, at * n + n, tuple(float(at * n + i) for i in range(n)),
            rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8), None, (b"",) * n,
        )
        for at in range(n_clips)
    ]  # fmt: skip


def encoded(model: adatp.VideoLLM, prune: str) -> tuple[Counting, EncodedFrames]:
    counting, shown = describer(model, prune), clips(3, 6)
    return counting, EncodedFrames(counting, shown, [DeviceFrames(clip.frames, "cpu") for clip in shown])


def test_clips_are_encoded_once_whatever_is_asked(model: adatp.VideoLLM) -> None:
    counting, frames = encoded(model, "adatp")
    whole = frames.show(range(18), [18])
    assert frames.show(frames.of_clip(1), [6]).n_frames == 6
    some = frames.show([2, 7, 8, 17], [1, 2, 1])
    torch.testing.assert_close(some.tokens, whole.tokens[[2, 7, 8, 17]])
    assert counting.n_frames == 18


def test_representative_frames_alone_are_encoded_and_each_once(model: adatp.VideoLLM) -> None:
    _, all_frames = encoded(model, "adatp")
    whole = all_frames.show(range(18), [18])
    counting, frames = encoded(model, "adatp+repframes")
    lengths = [4, 2]
    visual = frames.show(frames.of_clip(1), lengths)
    torch.testing.assert_close(visual.tokens, whole.tokens[[6 + 2, 6 + 5]], rtol=1e-4, atol=1e-5)
    assert counting.n_frames == 2
    frames.show(frames.of_clip(1), lengths)
    again = frames.show([6, 7, 8, 9, 12], [4, 1])
    torch.testing.assert_close(again.tokens, whole.tokens[[8, 12]], rtol=1e-4, atol=1e-5)
    assert counting.n_frames == 3
    request = counting.request("clip", visual, lengths, None, CAPTION)
    result = counting.engine.run([request])["clip"]
    assert result.visual_tokens_per_layer[0] == 2 * model.tokens_per_frame
    assert result.n_visual_tokens == 6 * model.tokens_per_frame
    unpruned = describer(model, "none")
    full = unpruned.engine.run(
        [unpruned.request("clip", all_frames.show(range(6, 12), lengths), lengths, None, CAPTION)]
    )
    assert result.flops.end_to_end < 0.6 * full["clip"].flops.end_to_end


def test_frames_of_which_a_model_makes_no_numbers_are_an_error_of_their_clip(model: adatp.VideoLLM) -> None:
    class Broken:
        device = "cpu"

        def images(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.where(pixels[:, 0, 0, :1] > 0.9, torch.nan, torch.ones(len(pixels), 4) / 2)

    good, bad = clips(2, 3)
    good.frames[:, 0, 0] = 0
    bad.frames[1, 0, 0] = 255
    pixels = [DeviceFrames(clip.frames, "cpu") for clip in (good, bad)]
    broken: Any = Broken()
    assert embed_clips(broken, HALF, 0.95, [good], pixels[:1], False)[0].lengths == (3,)
    with pytest.raises(NotFinite, match="clip 1"):
        embed_clips(broken, HALF, 0.95, [good, bad], pixels, False)
    after = embed_clips(broken, HALF, 0.95, [bad, good], pixels[::-1], True)  # as context alone it spoils nothing
    assert after[0].boundary_scores == (None,) or np.isfinite(after[0].boundary_scores[0] or 0)
