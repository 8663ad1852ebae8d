"""Small archives of real H.264 files, rendered by the tests themselves."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def render_video(path: Path, seconds: int, seed: int, fps: int = 4, size: tuple[int, int] = (96, 64)) -> Path:
    """Plain colours that change every three seconds, with a square that moves: a few segments for any encoder."""
    rng = np.random.default_rng(seed)
    width, height = size
    colours = rng.integers(0, 256, (seconds // 3 + 1, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"g": str(fps * 4)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = Fraction(1, fps)
        for i in range(seconds * fps):
            picture = np.full((height, width, 3), colours[i // (3 * fps)], np.uint8)
            left = i % (width - 16)
            picture[8:24, left : left + 16] = 255 - picture[8:24, left : left + 16]
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def render_archive(folder: Path) -> Path:
    """Three videos: two short, and one longer than an item (300 s at one frame a second)."""
    render_video(folder / "a.mp4", 7, seed=1)
    render_video(folder / "sub" / "b with space.mkv", 40, seed=2)
    render_video(folder / "long.mp4", 300, seed=3, fps=1)
    return folder
