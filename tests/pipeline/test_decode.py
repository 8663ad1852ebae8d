"""Decoding against a full sequential PyAV decode, file by file."""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest

from pipeline.decode import Decoder
from pipeline.resize import resize
from pipeline.sampling import Every, Sampling, Uniform, plan_clips
from pipeline.types import ClipFrames, ClipPlan, Decoded, ResizeRecipe
from tests.pipeline import reference
from tests.videos import OPEN, needs_videos, open_video

CLIPS_PER_ITEM = 8


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as decoder:
        yield decoder


@pytest.fixture(scope="module")
def times() -> dict[str, list[float]]:
    return {name: reference.times_of(open_video(name)) for name in OPEN}


def native(path: str) -> ResizeRecipe:
    """The recipe that leaves the first frame as it is."""
    height, width = reference.pixels_at(path, {0.0})[0.0].shape[:2]
    return ResizeRecipe(height, width)


def decode_all(decoder: Decoder, path: str, sampling: Sampling, recipe: ResizeRecipe) -> list[ClipFrames]:
    plans = plan_clips(decoder.probe(path, sampling), sampling)
    items = [plans[i : i + CLIPS_PER_ITEM] for i in range(0, len(plans), CLIPS_PER_ITEM)]
    return [clip for item in items for clip in decoder.decode(path, item, recipe, None).clips]


def assert_pixels(path: str, clips: list[ClipFrames], recipe: ResizeRecipe) -> None:
    expected = reference.pixels_at(path, {t for clip in clips for t in clip.pts_s})
    for clip in clips:
        for time, frame in zip(clip.pts_s, clip.frames, strict=True):
            difference = np.abs(resize(expected[time], recipe).astype(int) - frame)
            assert difference.max() == 0, f"frame at {time} s differs by up to {difference.max()}"


@needs_videos
@pytest.mark.parametrize("interval", ["1", "0.3"])
@pytest.mark.parametrize("name", OPEN)
def test_frame_on_screen_at_each_target(
    decoder: Decoder, times: dict[str, list[float]], name: str, interval: str
) -> None:
    path, sampling, recipe = open_video(name), Every(Fraction(interval)), native(open_video(name))
    duration_s = decoder.probe(path, sampling).duration_s
    clips = decode_all(decoder, path, sampling, recipe)
    expected = reference.every(times[name], duration_s, sampling.interval_s, 32)
    assert {clip.clip_index: list(clip.pts_s) for clip in clips} == expected
    assert_pixels(path, clips, recipe)


@needs_videos
@pytest.mark.parametrize("name", OPEN)
def test_uniform_takes_linspace_over_decodable_frames(
    decoder: Decoder, times: dict[str, list[float]], name: str
) -> None:
    path, recipe = open_video(name), ResizeRecipe(32, 48)
    (clip,) = decode_all(decoder, path, Uniform(32), recipe)
    n = len(times[name])
    assert list(clip.pts_s) == [times[name][int(i)] for i in np.linspace(0, n - 1, 32)]


@needs_videos
@pytest.mark.parametrize("name", OPEN)
def test_stored_times_give_their_own_frames(decoder: Decoder, times: dict[str, list[float]], name: str) -> None:
    stored = tuple(sorted({t for i, t in enumerate(times[name]) if i % 37 == 5} | {times[name][-1]}))[:32]
    plan = ClipPlan(3, stored[0], stored[-1] + 1, stored, before_s=None)
    recipe = native(open_video(name))
    decoded = decoder.decode(open_video(name), (plan,), recipe, None)
    assert decoded.clips[0].pts_s == stored
    assert_pixels(open_video(name), list(decoded.clips), recipe)


@needs_videos
@pytest.mark.parametrize("name", OPEN)
def test_healthy_file_is_covered_and_probed_right(decoder: Decoder, times: dict[str, list[float]], name: str) -> None:
    probe = decoder.probe(open_video(name), Every(Fraction(1)))
    decoded = decoder.decode(open_video(name), plan_clips(probe, Every(Fraction(1)))[:8], ResizeRecipe(8, 8), None)
    assert (decoded.coverage, decoded.bad_packets) == (1.0, 0)
    # The last frame stays on screen for its own length; in the AVI, for the empty packets that repeat it too.
    lengths = {"fate_offset_test.ogv": 1.0, "fate_oneminute_tscc.avi": 1.8, "prunevid_output_yuv444.mp4": 0.2}
    assert times[name][-1] < probe.duration_s <= times[name][-1] + lengths.get(name, 0.11)


__all__ = ["Decoded"]
