"""A span of a video written as a file of its own: re-encoded, exactly its frames; or copied, from a key frame on."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

from pipeline.decoding.ffmpeg.video import Video
from pipeline.decoding.ffmpeg.whole import OUT_OF_ORDER
from pipeline.errors import NoFrames

MARGINS_S = (0.0, 10.0, 60.0)
"""How far before the span a seek aims; the next when what it reached lies inside the span."""
MAX_EARLY = 64  # frames of sound
MAX_LATE = 200  # frames read on after the span for the rest of its sound
_COPIED_IN_MP4 = frozenset(["h264", "hevc", "av1", "vp9", "mpeg4", "aac", "mp3", "ac3", "opus", "flac"])


@dataclass(frozen=True)
class Cut:
    """What was written: times in the video of its first frame and of the end of its last."""

    path: str
    start_s: float
    end_s: float
    n_frames: int
    has_audio: bool


def cut(video: Video, path: str, start_s: float, end_s: float, copies: bool) -> Cut:
    """Write the frames of [start_s, end_s) to `path` and a suffix. Sound of the span goes along where there is any.

    Re-encoded (H.264 and AAC in MP4): exactly the frames whose time lies in the span. Copied: the packets from the last
    key frame not after start_s. Raises NoFrames when the span holds none.
    """
    origin = video.origin()
    span = origin.ticks + video.ticks(start_s), origin.ticks + video.ticks(end_s)
    if video.seconds(span[0] - origin.ticks) < start_s:
        span = span[0] + 1, span[1]
    if video.seconds(span[1] - origin.ticks) < end_s:
        span = span[0], span[1] + 1
    write = _copy if copies else _encode
    for margin_s in MARGINS_S:
        with contextlib.closing(_Source(video)) as source:
            if source.seek(span[0], margin_s) and (done := write(source, path, *span, is_certain=False)) is not None:
                return _told(video, done, origin.ticks)
    with contextlib.closing(_Source(video)) as source:
        done = write(source, path, *span, is_certain=True)
    if done is None:
        raise NoFrames(f"no frame between {start_s:g} and {end_s:g} s")
    return _told(video, done, origin.ticks)


@dataclass(frozen=True)
class _Written:
    path: str
    first: int  # ticks of the video stream
    end: int
    n_frames: int
    has_audio: bool


def _told(video: Video, done: _Written, origin: int) -> Cut:
    return Cut(
        done.path, video.seconds(done.first - origin), video.seconds(done.end - origin), done.n_frames, done.has_audio
    )


class _Source:
    """The video opened once more, with the sound that belongs to it."""

    def __init__(self, video: Video) -> None:
        self.owner = video
        self.container = av.open(
            video.input_file(),
            "r",
            format=video.told.demuxer,
            metadata_errors="ignore",
            options={"protocol_whitelist": "file"},
        )
        self.video = self.container.streams[video.stream.index]
        self.audio: Any = (
            self.container.streams.best("audio", related=self.video) if self.container.streams.audio else None
        )
        if self.audio is not None and self.audio.codec_context is None:
            self.audio = None
        for stream in self.container.streams:
            if stream not in (self.video, self.audio):
                stream.discard = av.stream.Discard.all
        self.video.codec_context.thread_count = 1

    def close(self) -> None:
        self.container.close()

    def seek(self, ticks: int, margin_s: float) -> bool:
        """To a key frame before `ticks`, if the container can; False when it cannot be tried."""
        if not self.owner.may_seek():
            return False
        try:
            self.container.seek(ticks - self.owner.ticks(margin_s), stream=self.video)
        except av.error.FFmpegError:
            return False
        return True

    def packets(self) -> Iterator[Any]:
        """Packets of picture and sound, until the file ends or can be read no further."""
        wanted = [self.video] if self.audio is None else [self.video, self.audio]
        try:
            for packet in self.container.demux(wanted):
                self.owner.beat()
                yield packet
        except av.error.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise

    def audio_ticks(self, ticks: int) -> int:
        """A time of the picture in ticks of the sound."""
        assert self.audio is not None
        in_sound: int = round(ticks * self.video.time_base / self.audio.time_base)
        return in_sound


def _frames(source: _Source, packet: Any) -> list[Any]:
    """What a packet decodes to; damaged packets give nothing."""
    try:
        return list(packet.decode())
    except av.error.FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        return []


def _encode(source: _Source, path: str, start: int, end: int, is_certain: bool) -> _Written | None:
    """Exactly the frames with start <= ticks < end. None when decoding began too late, or no frame was met."""
    pictures: list[int] = []
    last_end, n_past = end, 0
    writer: _Encoder | None = None
    early: list[AudioFrame] = []  # sound that comes before the first picture does
    try:
        for frame in _in_order(source):
            n_past += n_past > 0
            if isinstance(frame, AudioFrame):
                if writer is None:
                    early = [*early[-MAX_EARLY:], frame]
                elif not writer.add_sound(frame) and n_past:
                    break
                continue
            ticks = frame.pts or 0
            if not is_certain and ticks > start:
                return None
            is_certain = True
            if ticks >= end:
                last_end, n_past = min(last_end, ticks), n_past or 1
                if writer is None or writer.sound is None or n_past > MAX_LATE:
                    break
            elif ticks >= start and (not pictures or ticks > pictures[-1]):
                if writer is None:
                    writer = _Encoder(source, f"{path}.mp4", frame, start, end)
                    for sound in early:
                        writer.add_sound(sound)
                pictures.append(ticks)
                last_end = ticks + (frame.duration or 1)
                writer.add_picture(frame)  # which gives the frame another time
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        return None
    return _Written(f"{path}.mp4", pictures[0], last_end, len(pictures), writer.sound is not None)


def _in_order(source: _Source) -> Iterator[VideoFrame | AudioFrame]:
    """Pictures in the order they are shown (see whole.py), and sound as it comes."""
    waiting: list[VideoFrame] = []
    for packet in source.packets():
        for frame in _frames(source, packet):
            if isinstance(frame, AudioFrame):
                yield frame
            elif frame.pts is not None:
                waiting = sorted([*waiting, frame], key=lambda f: f.pts or 0)
        while len(waiting) > OUT_OF_ORDER:
            yield waiting.pop(0)
    yield from waiting


class _Encoder:
    """An MP4 of H.264 and AAC whose time begins with its first picture; picture times stay as they are."""

    def __init__(self, source: _Source, path: str, first: VideoFrame, start: int, end: int) -> None:
        self.first, self.source = first.pts or 0, source
        turn = self.turn = source.owner.origin().turn
        width, height = (first.height, first.width) if turn % 2 else (first.width, first.height)
        self.out = av.open(path, "w", options={"movflags": "+faststart"})
        rate = source.owner.stream.average_rate or Fraction(25)
        self.picture: Any = self.out.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "veryfast"})
        self.picture.width, self.picture.height = width, height
        self.picture.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
        base = source.video.time_base
        self.picture.time_base = self.picture.codec_context.time_base = base
        if source.owner.stream.sample_aspect_ratio:
            ratio = source.owner.stream.sample_aspect_ratio
            self.picture.codec_context.sample_aspect_ratio = 1 / ratio if turn % 2 else ratio
        self.sound: Any = None
        if source.audio is not None:
            self.sound = self.out.add_stream("aac", rate=source.audio.rate or 48000)
            self.sound.layout = "mono" if source.audio.channels == 1 else "stereo"
            self.resampler = av.AudioResampler(format="fltp", layout=self.sound.layout, rate=source.audio.rate or 48000)
            self.span = source.audio_ticks(start), source.audio_ticks(end)
            self.n_samples = 0

    def add_picture(self, frame: VideoFrame) -> None:
        ticks = (frame.pts or 0) - self.first
        size = {"width": self.picture.width, "height": self.picture.height, "format": self.picture.pix_fmt}
        if self.turn:
            upright = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), self.turn), dtype=np.uint8)
            frame = VideoFrame.from_ndarray(upright, format="rgb24")
        shown = frame.reformat(**size)
        shown.pts, shown.time_base = ticks, self.source.video.time_base
        shown.pict_type = av.video.frame.PictureType.NONE
        self.out.mux(self.picture.encode(shown))

    def add_sound(self, frame: AudioFrame) -> bool:
        """Whether there is more to come of the span."""
        if self.sound is None or frame.pts is None or frame.pts < self.span[0]:
            return self.sound is not None
        if frame.pts >= self.span[1]:
            return False
        if not self.n_samples:
            self.n_samples = round((frame.pts - self.span[0]) * self.source.audio.time_base * self.sound.rate)
        for piece in self.resampler.resample(frame):
            piece.pts, piece.time_base = self.n_samples, Fraction(1, piece.sample_rate)
            self.n_samples += piece.samples
            self.out.mux(self.sound.encode(piece))
        return True

    def close(self) -> None:
        for stream in (self.picture, self.sound):
            if stream is not None:
                self.out.mux(stream.encode(None))
        self.out.close()


def _copy(source: _Source, path: str, start: int, end: int, is_certain: bool) -> _Written | None:
    """Packets as they are, from the last key frame with ticks <= start. None when reading began too late."""
    held: list[Any] = []  # since the last key frame
    is_open = False
    for packet in source.packets():
        if packet.pts is None and packet.dts is None:
            continue
        if packet.stream is source.video:
            ticks = packet.pts if packet.pts is not None else packet.dts
            if packet.is_keyframe and ticks <= start:
                held, is_open = [], True
            elif packet.is_keyframe and not is_open:
                if not is_certain:
                    return None
                is_open = True
            if (packet.dts if packet.dts is not None else ticks) >= end:
                break
        if is_open:
            held.append(packet)
    pictures = sorted({p.pts if p.pts is not None else p.dts for p in held if p.stream is source.video})
    if not pictures or not is_open or pictures[-1] < start:
        return None
    last_length = max((p.pts, p.duration or 1) for p in held if p.stream is source.video and p.pts is not None)[1]
    written, has_audio = _mux(source, path, held, pictures[0])
    return _Written(written, pictures[0], pictures[-1] + last_length, len(pictures), has_audio)


def _mux(source: _Source, path: str, packets: list[Any], first: int) -> tuple[str, bool]:
    """Into MP4 where it can hold what is copied, else Matroska. Returns the file, and whether sound went along."""
    taken = [stream for stream in (source.video, source.audio) if stream is not None]
    ending = "mp4" if all(stream.codec_context.name in _COPIED_IN_MP4 for stream in taken) else "mkv"
    path, has_audio = f"{path}.{ending}", False
    with av.open(path, "w", options={"movflags": "+faststart"} if ending == "mp4" else {}) as out:
        streams = {}
        for stream in taken:
            try:
                streams[stream.index] = out.add_stream_from_template(stream, opaque=True)
            except ValueError as error:
                if stream is source.video:
                    raise NoFrames(
                        f"{stream.codec_context.name} cannot be copied into another file: re-encode"
                    ) from error
        for packet in packets:
            is_sound = packet.stream is not source.video
            shift = source.audio_ticks(first) if is_sound else first
            stamp = packet.pts if packet.pts is not None else packet.dts
            if packet.stream.index not in streams or (is_sound and stamp < shift):
                continue
            has_audio = has_audio or is_sound
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts = None if packet.dts is None else packet.dts - shift
            packet.stream = streams[packet.stream.index]
            out.mux(packet)
    return path, has_audio
