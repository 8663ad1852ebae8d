"""An opened video: its one stream, its packets and frames, and where its time begins."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import av
from av.video.frame import VideoFrame

from pipeline.decoding.ffmpeg.bitstream import Packet, resets_at_keyframes
from pipeline.decoding.ffmpeg.container import Container, container_of
from pipeline.decoding.ffmpeg.ranged import BlindFile, File, Need, RangedFile
from pipeline.errors import NoFrames, NotAVideo, ReadFailed, TooLarge, VideoError
from pipeline.types import Bounds

MAX_HEAD_PACKETS = 600
MAX_READ_FAILURES = 32  # in a row

Beat = Callable[[], None]


class Video:
    """An opened container and its one video stream."""

    def __init__(self, path: str, bounds: Bounds, beat: Beat, need: Need | None = None) -> None:
        self.path, self.bounds, self.beat, self.need = path, bounds, beat, need
        self.furthest = -1  # byte position the demuxer has reached
        self._origin: Origin | None = None
        self.told = container_of(path)
        self._open()
        pixels = self.codec.width * self.codec.height
        if pixels > bounds.max_megapixels * 1e6:
            raise TooLarge(f"{self.codec.width} x {self.codec.height}, more than {bounds.max_megapixels:g} megapixels")

    def _open(self) -> None:
        """(Re)open at the very beginning: the only rewind that is exact in every container."""
        limit = {"max_pixels": str(int(self.bounds.max_megapixels * 1e6))}
        try:
            self.container = av.open(
                self.input_file(),
                "r",
                format=self.told.demuxer,
                metadata_errors="ignore",
                options={"protocol_whitelist": "file"} | limit,
            )
        except av.error.FFmpegError as error:
            raise _not_opened(self.path, self.told, error) from error
        self.stream = _video_stream(self.container, self.told)
        for stream in self.container.streams:
            if stream.index != self.stream.index:
                stream.discard = av.stream.Discard.all
        self.codec = self.stream.codec_context
        self.codec.thread_count = 1
        self.codec.options = limit
        if not self.stream.time_base or self.stream.time_base <= 0:
            raise NotAVideo(f"{self.told.name}: a video stream without a time base")
        self.tick_num: int
        self.tick_den: int
        self.tick_num, self.tick_den = self.stream.time_base.numerator, self.stream.time_base.denominator
        self.head: list[Packet] | None = []  # all packets read since opening, while they are few
        self.replay: list[Packet] = []

    def input_file(self) -> str | File:
        """What FFmpeg opens: the path, unless the owner has to fetch what is read."""
        return self.path if self.need is None else RangedFile(self.path, self.need)

    def close(self) -> None:
        self.container.close()

    def origin(self) -> "Origin":
        """The first frame a full decode outputs, found once. Raises NoFrames. Moves the demuxer."""
        if self._origin is None:
            self._origin = find_origin(self)
        return self._origin

    def rewind(self) -> None:
        """Back to the first packet, with a decoder that knows nothing."""
        if not resets_at_keyframes(self.codec.name):
            self.close()
            self._open()
        elif self.head is not None:
            self.codec.flush_buffers()
            self.replay = list(self.head)
        elif self.indexed() and self.stream.index_entries:
            self.seek(self.stream.index_entries[0].timestamp)
        else:
            self.close()
            self._open()

    def indexed(self) -> bool:
        """Whether the demuxer knew every packet's place from the header on."""
        return self.told.demuxer == "mov" and 0 < self.stream.frames == len(self.stream.index_entries)

    def may_seek(self) -> bool:
        """Whether a seek lands before its target with right timestamps, or lands wrong in a way that is noticed."""
        return self.indexed() or self.told.demuxer in ("matroska", "mpegts", "avi")

    def seek(self, ticks: int) -> None:
        """To where the container thinks a keyframe at or before `ticks` is. Raises av.error.FFmpegError."""
        self.head, self.replay = None, []
        self.container.seek(ticks, stream=self.stream)

    def seconds(self, ticks: int) -> float:
        """The correctly rounded float64 of ticks * time_base."""
        return (ticks * self.tick_num) / self.tick_den

    def ticks(self, seconds: float) -> int:
        """The last tick whose `seconds` is not above `seconds`."""
        numerator, denominator = seconds.as_integer_ratio()
        ticks = numerator * self.tick_den // (denominator * self.tick_num)
        while self.seconds(ticks + 1) <= seconds:
            ticks += 1
        return ticks

    def packets(self) -> Iterator[Packet]:
        """Packets of the stream from where the demuxer stands; a read error is passed over, a run of them ends it."""
        while self.replay:
            yield self.replay.pop(0)
        failures = 0
        while failures < MAX_READ_FAILURES:
            try:
                for packet in self.container.demux(self.stream):
                    if packet.size:
                        failures = 0
                        self._note(packet)
                        yield packet
                return
            except av.error.FFmpegError as error:
                if isinstance(error, MemoryError):
                    raise
                _raise_if_storage_fails(self.path)
                failures += 1

    def _note(self, packet: Packet) -> None:
        if self.head is not None:
            self.head.append(packet)
            if len(self.head) > MAX_HEAD_PACKETS:
                self.head = None
        if packet.pos is not None and packet.pos > self.furthest:  # a demuxer in a loop makes no progress
            self.furthest = packet.pos
            self.beat()

    def decode(self, packet: Packet | None) -> list[VideoFrame]:
        """Frames that come out when `packet` goes in; None drains. Raises av.error.FFmpegError."""
        frames: list[VideoFrame] = self.codec.decode(packet)
        if frames:
            self.beat()
        return frames


class HeaderOnly(Video):
    """An indexed video of which only the header is read: its packets have times and places, and zeros for bytes."""

    def __init__(self, video: Video) -> None:
        super().__init__(video.path, video.bounds, video.beat, video.need)

    def input_file(self) -> str | File:
        self._blind = BlindFile(RangedFile(self.path, self.need or (lambda start, end: (start, end))))
        return self._blind

    def _open(self) -> None:
        super()._open()
        self._blind.blind = True


def _video_stream(container: Any, told: Container) -> Any:
    best = container.streams.best("video") if len(container.streams) else None
    attached = av.stream.Disposition.attached_pic
    if best is not None and best.disposition & attached:
        best = next((s for s in container.streams.video if not s.disposition & attached), None)
    if best is None:
        raise NotAVideo(f"{told.name} without a video stream")
    if best.codec_context is None:
        raise NoFrames(f"{told.name}: no decoder for its video stream")
    return best


def _not_opened(path: str, told: Container, error: av.error.FFmpegError) -> VideoError:
    text = f"{told.name}: {error.strerror or error}"
    if isinstance(error, MemoryError):
        return TooLarge(f"{told.name}: opening it wants more memory than the decode child may have")
    if isinstance(error, (av.error.InvalidDataError, av.error.EOFError, ValueError)):
        with open(path, "rb") as file:
            head = file.read(1 << 16)
        if told.demuxer == "mov" and b"encv" in head and b"sinf" in head:
            return NoFrames(f"{told.name}: its video is encrypted")
        return NotAVideo(text)
    _raise_if_storage_fails(path)
    return NotAVideo(text)


def _raise_if_storage_fails(path: str) -> None:
    """FFmpeg says "I/O error" of damaged files too: what the storage does, the storage is asked."""
    try:
        with open(path, "rb") as file:
            file.read(1 << 16)
            file.seek(max(0, os.path.getsize(path) - (1 << 16)))
            file.read(1 << 16)
    except OSError as error:
        raise ReadFailed(f"cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class Origin:
    """The first frame a full decode outputs."""

    ticks: int
    width: int
    height: int
    turn: int  # quarter turns counter-clockwise that bring a decoded picture upright
    absurd: bool  # the display matrix is no matrix: nothing the header says is taken on trust


def find_origin(video: Video) -> Origin:
    """Decode from the start of a fresh Video until a frame comes out. Raises NoFrames."""
    bad, cause = 0, "no packet gave a frame"
    for packet in and_drain(video.packets()):
        try:
            frames = video.decode(packet)
        except av.error.FFmpegError as error:
            bad, cause = bad + 1, f"{bad + 1} packets failed, the last with: {error.strerror or error}"
            if isinstance(error, MemoryError):
                raise
            continue
        for frame in frames:
            ticks = frame.pts if frame.pts is not None else 0
            turn, absurd = _quarter_turns(frame)
            return Origin(ticks, frame.width, frame.height, turn, absurd)
    raise NoFrames(f"{video.told.name}, {video.codec.name}: {cause}")


def and_drain(packets: Iterator[Packet]) -> Iterator[Packet | None]:
    """The packets, and None, which brings out what a decoder still holds."""
    yield from packets
    yield None


def _quarter_turns(frame: VideoFrame) -> tuple[int, bool]:
    """Quarter turns counter-clockwise, and whether the display matrix is absurd. Odd angles turn nothing."""
    degrees = frame.rotation
    absurd = abs(degrees) > 360
    return (0 if absurd or degrees % 90 else degrees // 90 % 4), absurd
