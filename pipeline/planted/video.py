"""Planted clips as real H.264 files. The only file here that needs PyAV (and Pillow, to bring frames back to size)."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from pipeline.planted.render import Pixels
from pipeline.planted.vocabulary import FRAME_PX

FILE_PX = 256  # chroma is halved in H.264: at 64 px a small thing would lose its colour
FILE_FPS = 4


def write_video(
    target: Path | io.BytesIO, frames: Pixels, seconds_per_frame: float = 1.0, lead_s: float = 0.0, crf: int = 20
) -> None:
    """Encode `frames` (n, H, W, 3) as H.264 in MP4, 4 pictures a second.

    Each is on screen for `seconds_per_frame`, the first `lead_s` less: every later change comes that much early.
    `crf` is the codec's constant rate factor, 0 to 51: higher is smaller and worse.
    """
    repeat = round(seconds_per_frame * FILE_FPS)
    if repeat < 1:
        raise ValueError(f"expected at least {1 / FILE_FPS} s a frame, got {seconds_per_frame}")
    with av.open(target if isinstance(target, io.BytesIO) else str(target), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FILE_FPS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, FILE_FPS)
        stream.options = {"crf": str(crf), "preset": "veryfast", "threads": "1"}
        pts = 0
        for index, frame in enumerate(frames):
            for _ in range(repeat - round(lead_s * FILE_FPS) if index == 0 else repeat):
                picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
                picture.pts, picture.time_base = pts, Fraction(1, FILE_FPS)
                container.mux(stream.encode(picture))
                pts += 1
        container.mux(stream.encode())


def round_trip(frames: Pixels, crf: int = 20) -> Pixels:
    """`frames` (n, H, W, 3) through H.264 and back, resized to (n, 64, 64, 3)."""
    file = io.BytesIO()
    write_video(file, frames, seconds_per_frame=1 / FILE_FPS, crf=crf)
    file.seek(0)
    with av.open(file, "r") as container:
        decoded = [frame.to_image() for frame in container.decode(video=0)]
    size = (FRAME_PX, FRAME_PX)
    return np.stack([np.asarray(image.resize(size, Image.Resampling.BICUBIC)) for image in decoded])
