"""The slow obvious decoder that the real one is held against: PyAV, every packet in order, every frame looked at."""

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


def frames_of(path: str) -> Iterator[tuple[Fraction, av.VideoFrame]]:
    """(exact time from the first frame, frame) of a full sequential decode, errors caught per packet."""
    first = None
    with av.open(path, metadata_errors="ignore") as container:
        stream = container.streams.best("video")
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                continue
            for frame in frames:
                first = frame.pts if first is None else first
                yield (frame.pts - first) * stream.time_base, frame


def times_of(path: str) -> list[float]:
    """Times of all frames of a full decode, in seconds, ascending."""
    return sorted(float(time) for time, _ in frames_of(path))


def pixels_at(path: str, times: set[float]) -> dict[float, Pixels]:
    """RGB24, upright, of the frames at these times."""
    found: dict[float, Pixels] = {}
    for time, frame in frames_of(path):
        if len(found) == len(times):
            break
        if float(time) in times:
            degrees = frame.rotation
            turns = degrees // 90 % 4 if degrees % 90 == 0 and abs(degrees) <= 360 else 0
            found[float(time)] = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
    return found


def on_screen(times: list[float], target: float) -> float:
    """The last time that is not after `target`."""
    return max(time for time in times if time <= target)


def every(times: list[float], duration_s: float, interval: Fraction, per_clip: int) -> dict[int, list[float]]:
    """Literal `every`: clip index -> times of its frames, each frame once per video, clips without frames left out."""
    clips: dict[int, list[float]] = {}
    taken = set()
    k = 0
    while float(k * interval) < duration_s:
        time = on_screen(times, float(k * interval))
        if time not in taken:
            taken.add(time)
            clips.setdefault(k // per_clip, []).append(time)
        k += 1
    return clips
