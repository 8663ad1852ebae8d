"""One pass over every frame of a video, small: for what must see them all."""

import av
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from pipeline.decoding.ffmpeg.video import Video, and_drain
from pipeline.decoding.ffmpeg.whole import OUT_OF_ORDER
from pipeline.decoding.shots import SIZE, Begin, ShotDetector
from pipeline.errors import NoFrames


def find_shots(video: Video) -> tuple[list[Begin], int, float]:
    """(where shots begin, frames, end of the last frame). What does not decode is passed over. Raises NoFrames."""
    origin = video.origin()
    detector, small = ShotDetector(), VideoReformatter()
    waiting: list[tuple[int, VideoFrame]] = []
    last, end = origin.ticks - 1, origin.ticks
    video.rewind()
    for packet in and_drain(video.packets()):
        try:
            frames = video.decode(packet)
        except av.error.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            continue
        waiting = sorted(waiting + [(f.pts, f) for f in frames if f.pts is not None], key=lambda pair: pair[0])
        while len(waiting) > (OUT_OF_ORDER if packet is not None else 0):
            ticks, frame = waiting.pop(0)
            if ticks <= last:
                continue
            picture = small.reformat(frame, *SIZE, format="rgb24", interpolation="AREA", threads=1).to_ndarray()
            detector.push(video.seconds(ticks - origin.ticks), picture.astype("uint8", copy=False))
            last, end = ticks, ticks + (frame.duration or max(1, ticks - last))
    if not detector.n_frames:
        raise NoFrames("no frame decodes")
    detector.finish()
    return detector.begins, detector.n_frames, video.seconds(end - origin.ticks)
