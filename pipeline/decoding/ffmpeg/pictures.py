"""A decoded frame as the index keeps it: upright, resized for the models, and as a thumbnail."""

import io
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from PIL import Image

from pipeline.decoding.ffmpeg.video import Video
from pipeline.decoding.resize import for_frames_of, resize_image
from pipeline.types import ResizeRecipe

THUMBNAIL_EDGE = 256


@dataclass(frozen=True)
class Picture:
    """A frame as the index keeps it."""

    model: np.ndarray[Any, np.dtype[np.uint8]]
    encoder: np.ndarray[Any, np.dtype[np.uint8]] | None
    thumbnail: bytes


class Studio:
    """Turns decoded frames into Pictures."""

    def __init__(self, video: Video, turn: int, model: ResizeRecipe, encoder: ResizeRecipe | None) -> None:
        self.turn, self.model, self.encoder = turn, model, encoder
        self.reformatter = VideoReformatter()
        aspect = video.stream.sample_aspect_ratio or Fraction(1)
        self.aspect = aspect if Fraction(1, 4) <= aspect <= 4 else Fraction(1)
        self.beat = video.beat
        self.pictures: dict[int, Picture] = {}

    def take(self, ticks: int, frame: VideoFrame) -> None:
        self.take_rgb(ticks, np.rot90(self.rgb(frame), self.turn))

    def rgb(self, frame: VideoFrame) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """(H, W, 3) as decoded, not yet upright."""
        pixels: np.ndarray[Any, np.dtype[np.uint8]]
        pixels = self.reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()  # type: ignore[assignment]  # uint8
        return pixels

    def take_rgb(self, ticks: int, upright: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        image = Image.fromarray(np.ascontiguousarray(upright))
        self.model = for_frames_of(image.size, self.model)  # of the first frame: all of a clip have one size
        model = resize_image(image, self.model)
        encoder = None if self.encoder is None else resize_image(image, self.encoder)
        self.pictures[ticks] = Picture(model, encoder, self._thumbnail(image))
        self.beat()

    def _thumbnail(self, image: Image.Image) -> bytes:
        width, height = image.size
        if self.turn % 2:
            height = max(1, round(height * self.aspect))
        else:
            width = max(1, round(width * self.aspect))
        scale = min(1.0, THUMBNAIL_EDGE / max(width, height))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0)
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=80)
        return buffer.getvalue()
