"""Videos whose every frame says its number, at any rate: what was cut can be read off."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

_BITS = 10


def render(path: Path, times: Sequence[Fraction], rate: Fraction, key_every: int = 12) -> Path:
    """Frame k at `times[k]`, its number in ten black or white bars."""
    base = Fraction(1, 120000)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=rate, options={"g": str(key_every), "bf": "2", "crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 16 * _BITS, 32, "yuv420p"
        stream.time_base = stream.codec_context.time_base = base
        for k, at in enumerate(times):
            bits = [255 * (k >> bit & 1) for bit in range(_BITS)]
            picture = np.repeat(np.repeat(np.array(bits, np.uint8)[None, :], 16, 1), 32, 0)
            frame = av.VideoFrame.from_ndarray(np.stack([picture] * 3, -1), format="rgb24")
            frame.pts, frame.time_base = round(at / base), base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def numbers_in(path: str | Path) -> list[int]:
    """What the frames of a file say."""
    with av.open(str(path)) as source:
        return [_number(frame.to_ndarray(format="gray")) for frame in source.decode(video=0)]


def _number(grey: np.ndarray) -> int:
    means = grey.reshape(grey.shape[0], _BITS, -1).mean(axis=(0, 2))
    return sum(1 << bit for bit in range(_BITS) if means[bit] > 128)
