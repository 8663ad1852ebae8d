"""Long videos in seconds: a short piece is encoded once, its packets are written again and again, each time later."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def render_piece(path: Path, seconds: int, fps: int, size: tuple[int, int], bit_rate: int, gop_s: int) -> Path:
    """H.264 in MP4, B-frames, about `bit_rate`: drifting noise, and a bar that moves. Closed groups of pictures."""
    rng = np.random.default_rng(7)
    width, height = size
    noise = rng.integers(0, 256, (height // 4, width // 4 + 4 * seconds * fps, 3), dtype=np.uint8)
    options = {"preset": "ultrafast", "bf": "2", "g": str(gop_s * fps), "keyint_min": str(gop_s * fps)}
    options |= {"sc_threshold": "0", "flags": "+cgop", "x264-params": "nal-hrd=cbr:force-cfr=1"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", bit_rate
        stream.codec_context.options |= {"maxrate": str(bit_rate), "bufsize": str(bit_rate)}
        stream.time_base = Fraction(1, fps)
        for i in range(seconds * fps):
            part = noise[:, 4 * i : 4 * i + width // 4].repeat(4, axis=0).repeat(4, axis=1)
            picture = np.zeros((height, width, 3), np.uint8)
            picture[: part.shape[0], : part.shape[1]] = part
            at = i * 8 % (width - 32)
            picture[: height // 8, at : at + 32] = 255
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def repeat(piece: Path, path: Path, times: int, options: dict[str, str] | None = None) -> Path:
    """The piece `times` over in one file; its container follows the suffix of `path`."""
    with av.open(str(path), "w", options=options or {}) as output:
        stream = None
        for turn in range(times):
            with av.open(str(piece)) as source:
                video = source.streams.video[0]
                if stream is None:
                    stream = output.add_stream_from_template(video)
                shift = turn * int(source.duration / 1e6 / video.time_base)  # type: ignore[operator]  # both are set
                for packet in source.demux(video):
                    if packet.pts is None or packet.dts is None:
                        continue
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    output.mux(packet)
    return path
