"""Decoding against a full sequential PyAV decode, file by file."""

import io
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from pipeline.decoding.decoder import Decoder
from pipeline.decoding.resize import resize
from pipeline.decoding.sampling import Every, Sampling, Uniform, plan_clips
from pipeline.types import ClipFrames, ClipPlan, ResizeRecipe
from tests.pipeline.decoding import reference
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


@needs_videos
@pytest.mark.parametrize("name", ["decord_video_90.mov", "dj_video1.mp4", "car-detection.mp4", "mmaction2_demo.mp4"])
def test_decord_gives_the_same_bits_where_it_is_trusted(decoder: Decoder, name: str) -> None:
    """Everything about a row but `decoder` is the same, whichever of the two made it."""
    path, recipe = open_video(name), native(open_video(name))
    plans = plan_clips(decoder.probe(path, Every(Fraction(1))), Every(Fraction(1)))
    by_pyav, by_decord = (decoder.decode(path, plans, recipe, None, avoid=avoid) for avoid in ("decord", "pyav"))
    assert (by_pyav.decoder, by_decord.decoder) == ("pyav", "decord")
    for ours, other in zip(by_pyav.clips, by_decord.clips, strict=True):
        assert ours.pts_s == other.pts_s
        assert (ours.frames == other.frames).all()
        assert ours.thumbnails == other.thumbnails


@needs_videos
@pytest.mark.parametrize(
    "name",
    ["fate_scte20.ts", "fate_oneminute_tscc.avi", "fate_dv84_hdr_rot.mov", "fate_frame_size_change.webm"]
    + ["fate_sample-in-issue-505_rot.mov", "fate_vc1-wmapro.ismv", "mmaction2_test.avi"],
)
def test_decord_is_not_used_where_it_lies(decoder: Decoder, name: str) -> None:
    plans = plan_clips(decoder.probe(open_video(name), Every(Fraction(1))), Every(Fraction(1)))
    assert decoder.decode(open_video(name), plans[:1], ResizeRecipe(8, 8), None, avoid="pyav").decoder == "pyav"


@needs_videos
def test_encoder_frames_and_thumbnails(decoder: Decoder) -> None:
    """Both recipes are applied to the same frame; thumbnails are upright, aspect true and never enlarged."""
    path, recipe, other = open_video("fate_dv84_hdr_rot.mov"), ResizeRecipe(40, 60), ResizeRecipe(24, 24, 2, 30)
    plans = plan_clips(decoder.probe(path, Every(Fraction(1))), Every(Fraction(1)))
    (clip,) = decoder.decode(path, plans, recipe, other).clips
    assert clip.encoder_frames is not None
    pixels = reference.pixels_at(path, set(clip.pts_s))
    for time, frame, encoder_frame, jpeg in zip(
        clip.pts_s, clip.frames, clip.encoder_frames, clip.thumbnails, strict=True
    ):
        assert (frame == resize(pixels[time], recipe)).all()
        assert (encoder_frame == resize(pixels[time], other)).all()
        image = Image.open(io.BytesIO(jpeg))
        assert (image.format, image.size) == ("JPEG", (144, 256))
        small = np.asarray(Image.fromarray(pixels[time]).resize(image.size, Image.Resampling.BOX)).astype(int)
        assert np.abs(small - np.asarray(image)).mean() < 6
    (tiny,) = decoder.decode(open_video("newtonscradle.gif"), plans[:1], recipe, None).clips
    assert Image.open(io.BytesIO(tiny.thumbnails[0])).size == (200, 150)
