"""Items in the middle of longer videos: seeking in each container lands on the frames of a full sequential decode."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.decoding.decoder import Decoder
from pipeline.decoding.resize import resize
from pipeline.decoding.sampling import Every, plan_clips
from pipeline.types import ResizeRecipe
from tests.pipeline.decoding import reference

SECONDS, FPS, WIDTH, HEIGHT = 41, 25, 96, 64
RECIPE = ResizeRecipe(HEIGHT, WIDTH)

X264 = {"g": "50", "bf": "3", "preset": "veryfast"}
VIDEOS = {
    "h264.mp4": ("libx264", X264, {}),
    "pyramid.mp4": ("libx264", X264 | {"x264-params": "b-pyramid=normal:ref=4:bframes=5:keyint=90"}, {}),
    "opengop.mp4": ("libx264", X264 | {"x264-params": "open-gop=1:keyint=40"}, {}),
    "opengop.ts": ("libx264", X264 | {"x264-params": "open-gop=1:keyint=40"}, {}),
    "onegop.mp4": ("libx264", X264 | {"g": "9999"}, {}),
    "intrarefresh.mkv": ("libx264", X264 | {"x264-params": "intra-refresh=1:keyint=50"}, {}),
    "intrarefresh.ts": ("libx264", X264 | {"x264-params": "intra-refresh=1:keyint=50"}, {}),
    "fragmented.mp4": ("libx264", X264, {"movflags": "frag_keyframe+empty_moov"}),
    "h264.mkv": ("libx264", X264, {}),
    "h264.ts": ("libx264", X264, {}),
    "h264.flv": ("libx264", X264, {}),
    "hevc.mp4": (
        "libx265",
        {"g": "50", "preset": "ultrafast", "x265-params": "log-level=none:open-gop=1:bframes=4"},
        {},
    ),
    "hevc.mkv": ("libx265", {"preset": "ultrafast", "x265-params": "log-level=none:temporal-layers=3:bframes=3"}, {}),
    "mpeg2.ts": ("mpeg2video", {"g": "15", "bf": "2"}, {}),
    "mpeg2.mpg": ("mpeg2video", {"g": "15", "bf": "2"}, {}),
    "mpeg4.avi": ("mpeg4", {"g": "50", "bf": "2"}, {}),
    "mpeg4.mp4": ("mpeg4", {"g": "50", "bf": "2"}, {}),
    "vp8.webm": ("libvpx", {"g": "50", "deadline": "realtime", "cpu-used": "16", "lag-in-frames": "0"}, {}),
    "vp9.webm": ("libvpx-vp9", {"g": "50", "deadline": "realtime", "cpu-used": "8"}, {}),
    "mjpeg.mov": ("mjpeg", {}, {}),
    "wmv2.asf": ("wmv2", {"g": "50"}, {}),
}


def picture(k: int) -> np.ndarray:
    """A moving pattern with sharp edges, noise and a scene change every 7 s: no two frames alike."""
    rng = np.random.default_rng(k // 175)
    base = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    frame = np.roll(base, (k, 2 * k), (0, 1))
    frame[:8, :8] = (k * 37 % 256, k * 11 % 256, k % 256)
    return frame


def write(path: Path, codec: str, options: dict[str, str], container_options: dict[str, str], vfr: bool) -> None:
    name = path.name
    with av.open(str(path), "w", format="mpegts" if name.endswith(".ts") else None, options=container_options) as out:
        stream = out.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000) if vfr else Fraction(1, FPS)
        at = 0
        for k in range(SECONDS * FPS):
            frame = av.VideoFrame.from_ndarray(picture(k), format="rgb24")
            frame.pts = at if vfr else k
            at += 17 + 29 * (k % 5)
            frame.time_base = stream.codec_context.time_base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as decoder:
        yield decoder


@pytest.mark.parametrize("name", [*VIDEOS, "vfr.mp4", "vfr.mkv"])
def test_items_anywhere_equal_the_full_decode(decoder: Decoder, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    codec, options, container_options = VIDEOS.get(name, ("libx264", X264, {}))
    write(path, codec, options, container_options, vfr=name.startswith("vfr"))
    times, sampling = reference.times_of(str(path)), Every(Fraction(7, 10))
    probe = decoder.probe(str(path), sampling)
    assert times[-1] < probe.duration_s < times[-1] + 0.2
    plans = plan_clips(probe, sampling, frames_per_clip=8)
    expected = reference.every(times, probe.duration_s, sampling.interval_s, 8)
    pixels = reference.pixels_at(str(path), {t for clip in expected.values() for t in clip})
    for first in range(len(plans) - 2, -1, -3):  # backwards, so that each item has to find its own way
        decoded = decoder.decode(str(path), plans[first : first + 2], RECIPE, None)
        assert (decoded.coverage, decoded.bad_packets) == (1.0, 0)
        for clip in decoded.clips:
            assert list(clip.pts_s) == expected[clip.clip_index]
            for time, frame in zip(clip.pts_s, clip.frames, strict=True):
                assert (frame == resize(pixels[time], RECIPE)).all(), f"other pixels at {time} s"


@pytest.mark.parametrize(
    "name", ["h264.mp4", "mpeg2.ts", "h264.ts", "vp9.webm", "opengop.ts", "opengop.mp4", "intrarefresh.ts"]
)
def test_sparse_targets_far_apart(decoder: Decoder, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write(path, *VIDEOS[name], vfr=False)
    times, sampling = reference.times_of(str(path)), Every(Fraction(11))
    plans = plan_clips(decoder.probe(str(path), sampling), sampling)
    (clip,) = decoder.decode(str(path), plans, RECIPE, None).clips
    assert list(clip.pts_s) == [reference.on_screen(times, 11.0 * k) for k in range(4)]
    pixels = reference.pixels_at(str(path), set(clip.pts_s))
    assert all((f == resize(pixels[t], RECIPE)).all() for t, f in zip(clip.pts_s, clip.frames, strict=True))
