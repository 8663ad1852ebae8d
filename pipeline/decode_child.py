"""The decode child: the one process, and the one file, that lets FFmpeg see a video. `pipeline.decode` owns it.

It reads requests from stdin and answers on stdout (pipe.py). It may hang, crash or want too much memory; then its
owner kills it, and the video has cost nobody else anything.

Rules that every path here keeps:

* Stream: FFmpeg's "best" video stream (av_find_best_stream, which decord takes too); attached pictures are no video.
* Time: presentation time in seconds from the first frame that a full sequential decode outputs.
* Pixels: RGB24 of exactly the wanted frame, turned upright by the display matrix where it turns by multiples of 90.
* A packet that does not decode is counted and passed over; what is around it is kept.

Ticks are integer presentation times in units of the stream's time base.
"""

import bisect
import contextlib
import ctypes
import io
import os
import re
import resource
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from itertools import chain, pairwise
from typing import Any

import av
import av.logging
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from PIL import Image

from pipeline.container import Container, container_of
from pipeline.errors import NoFrames, NotAVideo, ReadFailed, TooLarge, VideoError
from pipeline.pipe import PipeClosed, receive, send
from pipeline.ranged import BlindFile, File, Need, RangedFile
from pipeline.resize import resize_image
from pipeline.sampling import Every, Sampling, count_targets, parse_sampling, uniform_indices
from pipeline.types import Bounds, ClipPlan, Probe, ResizeRecipe

THUMBNAIL_EDGE = 256
BEAT_S = 0.2
OUT_OF_ORDER = 2  # frames; where a container stores decoding times only, B-frames come out with swapped times
MAX_HEAD_PACKETS = 600
MAX_READ_FAILURES = 32  # in a row
LOOKAHEAD = 40  # packets; H.264 and HEVC reorder at most 16 frames, two packets each when coded as fields
MAX_PENDING_BYTES = 64 << 20
MAX_PENDING_PACKETS = 1000
WHOLE_SCAN_BYTES = 32 << 20  # up to this size the probe demuxes the whole file; above, its head and tail

Beat = Callable[[], None]
Packet = Any  # av.Packet: generic in its stubs, not at run time


# --- opening ----------------------------------------------------------------------------------------------------------


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
                self._file(),
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

    def _file(self) -> str | File:
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

    def _file(self) -> str | File:
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


# --- where decoding may start, and which packets it may leave out -----------------------------------------------------

# fmt: off
_RESETS_AT_KEYFRAMES = frozenset((
    "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2", "wmv3", "vc1", "h263",
    "flv1", "flv", "vp6", "vp6f", "vp8", "vp9", "av1", "libdav1d", "theora", "mjpeg", "prores", "dnxhd", "dvvideo",
    "rawvideo", "ffv1", "huffyuv", "ffvhuff", "utvideo", "cfhd", "hap", "png", "v210",
))
# fmt: on


def resets_at_keyframes(codec: str) -> bool:
    """Whether the codec's keyframes are known to need nothing before them (H.264 and HEVC are told by NAL type)."""
    return codec in _RESETS_AT_KEYFRAMES or codec in ("h264", "hevc")


_SKIPS_NONREF = frozenset(("h264", "mpeg1video", "mpeg2video", "mpeg4", "vc1", "wmv3"))
_IRAP_HEVC = range(16, 22)


class Bitstream:
    """What a coded packet is, where that decides exactness: told by the bitstream, not by the container alone."""

    def __init__(self, codec: Any) -> None:
        self.name = codec.name
        extra = codec.extradata or b""
        prefixed = extra[:1] == b"\1" and self.name in ("h264", "hevc")
        at = {"h264": 4, "hevc": 21}.get(self.name, 0)
        self.length_size = (extra[at] & 3) + 1 if prefixed and len(extra) > at else 0  # 0: start codes
        # DivX packs a B-frame and its reference into one packet and pads with empty ones: times and frames shift.
        packed = self.name == "mpeg4" and re.search(rb"DivX\d+[Bb]?\d+p", extra) is not None
        self.sparse = resets_at_keyframes(self.name) and not packed
        """Whether packets and frames answer each other one to one, so that some may be left out."""

    def is_reset(self, packet: Packet) -> bool:
        """Whether every frame shown at or after this one decodes alike from here and from the file's start."""
        if not packet.is_keyframe:
            return False
        if self.name == "h264":
            return any(header & 31 == 5 for header in self._units(packet))  # IDR
        if self.name == "hevc":
            return any(header >> 1 & 63 in _IRAP_HEVC for header in self._units(packet))
        return self.name in _RESETS_AT_KEYFRAMES

    def is_recovery(self, packet: Packet) -> bool:
        """Whether decoding may start here, though frames are only alike from the next such packet on.

        That is H.264 without IDR pictures, as broadcast: open groups of pictures, or intra refresh.
        """
        return self.name == "h264" and bool(packet.is_keyframe)

    def has_parameters(self, packet: Packet) -> bool:
        """Whether an H.264 keyframe carries a sequence parameter set of its own, so that the size may change there."""
        return packet.is_keyframe and any(header & 31 == 7 for header in self._units(packet))

    def may_drop(self, packet: Packet) -> bool:
        """Whether an unwanted packet need not be decoded: HEVC that the container marks as referred to by none.

        A container that lies here is found out: FFmpeg's HEVC decoder gives no frame where a reference is missing.
        """
        return self.name == "hevc" and bool(packet.is_disposable)

    def _units(self, packet: Packet) -> Iterator[int]:
        """The first byte of each NAL unit."""
        data = memoryview(packet)
        if self.length_size:
            at = 0
            while at + self.length_size < len(data):
                size = int.from_bytes(data[at : at + self.length_size], "big")
                at += self.length_size
                yield data[at]
                at += size
        else:
            raw = bytes(data)
            for match in re.finditer(b"\0\0\x01(.)", raw, re.DOTALL):
                yield match[1][0]


# --- the origin of time -----------------------------------------------------------------------------------------------


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
    for packet in _and_drain(video.packets()):
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


def _and_drain(packets: Iterator[Packet]) -> Iterator[Packet | None]:
    yield from packets
    yield None


def _quarter_turns(frame: VideoFrame) -> tuple[int, bool]:
    """Quarter turns counter-clockwise, and whether the display matrix is absurd. Odd angles turn nothing."""
    degrees = frame.rotation
    absurd = abs(degrees) > 360
    return (0 if absurd or degrees % 90 else degrees // 90 % 4), absurd


# --- probe ------------------------------------------------------------------------------------------------------------


@dataclass
class Table:
    """Presentation ticks of demuxed packets that a player would show, and the length of the last."""

    ticks: list[int] = field(default_factory=list)
    last: int = -(1 << 62)
    last_length: int = 0
    packets: int = 0

    def add(self, packet: Packet) -> None:
        self.packets += 1
        ticks = packet.pts if packet.pts is not None else packet.dts
        if ticks is None or packet.is_discard:
            return
        self.ticks.append(ticks)
        if ticks > self.last:
            self.last, self.last_length = ticks, packet.duration or 0


def probe(video: Video, sampling: Sampling) -> Probe:
    """Look once, without decoding more than the first frame (`uniform` has to count frames and decodes them all)."""
    origin = video.origin()
    if origin.width * origin.height > video.bounds.max_megapixels * 1e6:
        raise TooLarge(f"{origin.width} x {origin.height} pixels, more than {video.bounds.max_megapixels:g} megapixels")
    table = _scan(video, origin)
    shown = sorted(t for t in set(table.ticks) if t >= origin.ticks) or [origin.ticks]
    steps = np.diff(np.array(shown, dtype=np.float64))
    usual = int(np.median(steps)) if len(steps) else _frame_ticks(video)
    length = table.last_length or usual
    duration_s = video.seconds(max(max(table.last, origin.ticks) + length - origin.ticks, 1))
    if duration_s > video.bounds.max_hours * 3600:
        raise TooLarge(f"{duration_s / 3600:.1f} hours, more than {video.bounds.max_hours:g}")
    if isinstance(sampling, Every) and duration_s / float(sampling.interval_s) > video.bounds.max_samples:
        n = count_targets(duration_s, sampling.interval_s)
        raise TooLarge(f"{n} samples at {sampling}, more than {video.bounds.max_samples}")
    targets: tuple[float, ...] = ()
    if not isinstance(sampling, Every):
        times = count_frames(video, origin)
        targets = tuple(times[i] for i in uniform_indices(len(times), sampling.n))
    span = video.seconds(shown[-1] - shown[0])
    return Probe(
        container=video.told.name,
        codec=video.codec.codec.canonical_name,
        width=origin.width,
        height=origin.height,
        rotation=-90 * origin.turn % 360,
        fps=(len(shown) - 1) / span if span > 0 else None,
        is_vfr=bool(len(steps) and steps.max() - steps.min() > 1),
        duration_s=duration_s,
        recorded_at_us=_recorded_at(video),
        target_times_s=targets,
    )


def _frame_ticks(video: Video) -> int:
    rate = video.stream.average_rate or video.stream.guessed_rate
    return max(1, round(video.tick_den / video.tick_num / rate)) if rate and rate > 0 else 1


def _scan(video: Video, origin: Origin) -> Table:
    """The packet table: of the whole file when it is small or its header implausible, else of its head and tail."""
    claim_s = (video.container.duration or 0) / 1e6
    small = os.path.getsize(video.path) <= WHOLE_SCAN_BYTES
    may_seek = resets_at_keyframes(video.codec.name) and _may_seek(video)
    if not small and claim_s > 0 and may_seek:
        if video.indexed():
            with contextlib.closing(HeaderOnly(video)) as header:
                head, tail = _head_and_tail(header, claim_s)
        else:
            head, tail = _head_and_tail(video, claim_s)
        found_s = video.seconds(tail.last - origin.ticks)
        if head.ticks and abs(found_s - claim_s) <= 2 + claim_s / 100:
            head.last, head.last_length = tail.last, tail.last_length
            return head
    table = Table()
    video.rewind()
    for packet in video.packets():
        table.add(packet)
    return table


def _head_and_tail(video: Video, claim_s: float) -> tuple[Table, Table]:
    head, tail = Table(), Table()
    video.rewind()
    for packet in video.packets():
        head.add(packet)
        if head.packets >= 500:
            break
    for margin_s in (2, 20, 200):
        video.seek(video.ticks(max(0.0, claim_s - margin_s)) + (video.stream.start_time or 0))
        for packet in video.packets():
            tail.add(packet)
        if tail.ticks:
            break
    return head, tail


def _recorded_at(video: Video) -> int | None:
    """The container's creation_time in microseconds since 1970, if it is one a camera can have written."""
    text = video.container.metadata.get("creation_time") or video.stream.metadata.get("creation_time") or ""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return round(at.timestamp()) * 1_000_000 + at.microsecond if 1980 < at.year < 2100 else None


def count_frames(video: Video, origin: Origin) -> list[float]:
    """The times of all decodable frames, by decoding them with the costly pixel work left out."""
    if video.indexed() and os.path.getsize(video.path) > WHOLE_SCAN_BYTES:
        return _times_by_header(video, origin)
    video.rewind()
    video.codec.options = {**video.codec.options, "skip_loop_filter": "all", "skip_idct": "all"}
    times: list[float] = []
    for packet in _and_drain(video.packets()):
        try:
            frames = video.decode(packet)
        except av.error.FFmpegError:
            continue
        for frame in frames:
            if frame.pts is not None and frame.pts >= origin.ticks:
                times.append(video.seconds(frame.pts - origin.ticks))
            if len(times) > 240 * 3600 * video.bounds.max_hours:
                raise TooLarge(f"more than {len(times)} frames")
    video.rewind()
    return sorted(times) or [0.0]


def _times_by_header(video: Video, origin: Origin) -> list[float]:
    """The times of all frames that the header of a large MP4 places inside the file: no other byte of it is read.

    A frame that turns out not to decode is damage, for the pass over the video to meet.
    """
    size, shown = os.path.getsize(video.path), set[int]()
    with contextlib.closing(HeaderOnly(video)) as header:
        for packet in header.packets():
            inside = packet.pos is not None and packet.pos + packet.size <= size
            if inside and packet.pts is not None and not packet.is_discard:
                shown.add(packet.pts)
    return [video.seconds(ticks - origin.ticks) for ticks in sorted(shown) if ticks >= origin.ticks] or [0.0]


# --- passes over a video that hand out the frame on screen at each target ---------------------------------------------

Take = Callable[[int, VideoFrame], None]  # ticks of the frame, the frame


class Unproven(Exception):
    """The sparse pass cannot vouch for a frame: something is damaged, dropped or out of order. Decode all instead."""


def _may_seek(video: Video) -> bool:
    """Where a seek lands before its target with right timestamps, or lands wrong in a way that is noticed."""
    return video.indexed() or video.told.demuxer in ("matroska", "mpegts", "avi")


DAMAGE_MARGINS_S = (10.0, 60.0)
SEEK_MARGINS_S = (0.0, 2.0, 10.0, 60.0)
_SETTLES_LATE = frozenset(("mpegts", "avi"))  # after a seek, times are right only from the second keyframe on


def land(video: Video, bits: Bitstream, target: int, margins_s: tuple[float, ...]) -> Iterator[Packet] | None:
    """Packets from where decoding gives `target`'s frame right: seek ever farther before it until that is certain.

    None where no seek does, or the way from the file's start is not longer.
    """
    for margin_s in margins_s:
        at = target - video.ticks(margin_s)
        if at <= (video.stream.start_time or 0):
            return None
        try:
            video.seek(at)
        except av.error.FFmpegError:
            return None
        packets = video.packets()
        first = _first_start(video, bits, packets, target)
        if first:
            return chain(first, packets)
    return None


def _first_start(video: Video, bits: Bitstream, packets: Iterator[Packet], target: int) -> list[Packet]:
    """Packets read from the first sure start at or before `target`, beginning with it; none if there is none."""
    to_pass, read = int(video.told.demuxer in _SETTLES_LATE), list[Packet]()
    for packet in packets:
        if packet.pts is None or packet.pts > target or len(read) > MAX_PENDING_PACKETS:
            return []
        start = bits.is_reset(packet)
        if (start or bits.is_recovery(packet)) and to_pass:
            to_pass -= 1
        elif start:
            return [packet]
        elif bits.is_recovery(packet) and read:
            return [*read, packet]
        elif bits.is_recovery(packet) or read:
            read.append(packet)
    return []


class SparsePass:
    """One pass in decode order that decodes little more than the targets need.

    Packets wait until it is certain which targets they serve (`_settled`). A keyframe that resets the decoder and lies
    at or before the next target makes everything waiting before it needless. What has to be decoded but is not wanted
    goes in with skip_frame=NONREF, so that the decoder leaves out pictures no other refers to.
    """

    def __init__(self, video: Video, targets: list[int], end: int, take: Take) -> None:
        self.video, self.take, self.bits, self.end = video, take, Bitstream(video.codec), end
        self.targets, self.next = targets, 0  # ticks, ascending; index of the first target without a frame
        self.shown: dict[int, int] = {}  # target -> ticks of its frame
        self.expected: set[int] = set()  # wanted frames that went in and have not come out
        self.window: deque[Packet] = deque()  # read, not settled
        self.pending: list[tuple[Packet, bool]] = []  # settled, not decoded; and whether wanted
        self.pending_bytes = 0
        self.seen: list[int] = []  # ticks of packets, sorted
        self.last_dts: int | None = None
        self.reset_at: int | None = None  # ticks of the keyframe decoding (re)started at
        self.dirty = False  # whether the decoder holds anything
        self.may_seek = _may_seek(video)
        self.unwanted = "NONREF" if video.codec.name in _SKIPS_NONREF else "DEFAULT"
        self.recovery: int | None = None  # index in `pending` of the last recovery point
        self.landed = False  # whether the next packet is the first after a seek
        self.sought = -1  # index of the target last sought

    def run(self) -> dict[int, int]:
        """Take every wanted frame; target -> ticks of its frame. Raises Unproven."""
        video = self.video
        if not self.bits.sparse:
            raise Unproven(f"{self.bits.name} is decoded whole")
        if self.targets[0] > (video.stream.start_time or 0) + self._gap() and self.may_seek:
            packets = self._sought()
        else:
            video.rewind()
            packets = video.packets()
        while self.next < len(self.targets):
            packet = next(packets, None)
            if packet is None:
                while self.window:
                    self._settle(self.window.popleft())
                break
            self._read(packet)
            while self.window and self._settled(self.window[0]):
                self._settle(self.window.popleft())
            if self.next < len(self.targets) and self._far() and self.may_seek:
                self._drain()
                packets = self._sought()
        if self.next < len(self.targets):
            raise Unproven("a target before the first frame found")
        self._drain()
        for packet in packets:  # damage after the last wanted frame is the item's too
            if packet.is_corrupt:
                raise Unproven("a packet flagged as corrupt")
            if packet.dts is None or packet.dts >= self.end:
                break
        return self.shown

    def _gap(self) -> int:
        return self.video.ticks(3.0)

    def _far(self) -> bool:
        """Whether the next target lies so far ahead that a seek is cheaper than reading on; one try per target."""
        if self.sought == self.next or not self.seen:
            return False
        return self.targets[self.next] > self.seen[-1] + self._gap()

    def _sought(self) -> Iterator[Packet]:
        """Packets from where decoding may start for the next target, found by seeking."""
        self.sought = self.next
        self.window.clear()
        self.seen.clear()
        self._forget_pending()
        self.last_dts = None
        packets = land(self.video, self.bits, self.targets[self.next], SEEK_MARGINS_S)
        if packets is None:
            self.may_seek, self.reset_at = False, None  # it does not work here: read on from the start
            self.video.rewind()
            return self.video.packets()
        self.landed = True
        return packets

    def _read(self, packet: Packet) -> None:
        if packet.pts is None or packet.is_corrupt:
            raise Unproven("a packet without a time, or flagged as corrupt")
        if not packet.is_discard:
            at = bisect.bisect_left(self.seen, packet.pts)
            if at < len(self.seen) and self.seen[at] == packet.pts:
                raise Unproven("two packets of one time")
            self.seen.insert(at, packet.pts)
            if len(self.seen) > 8 * LOOKAHEAD:
                del self.seen[: 4 * LOOKAHEAD]
        if packet.dts is not None:
            self.last_dts = packet.dts
        self.window.append(packet)

    def _after(self, ticks: int) -> int | None:
        at = bisect.bisect_right(self.seen, ticks)
        return self.seen[at] if at < len(self.seen) else None

    def _settled(self, packet: Packet) -> bool:
        """Whether it is known which frame follows this one on screen: no packet to come can be shown before dts."""
        after = self._after(packet.pts)
        if len(self.window) > LOOKAHEAD:
            return True
        return after is not None and self.last_dts is not None and after <= self.last_dts

    def _settle(self, packet: Packet) -> None:
        if self.next < len(self.targets) and packet.pts <= self.targets[self.next]:
            self._start_here_if_possible(packet)
        if self.landed:
            self.reset_at, self.landed = packet.pts, False
        if self.reset_at is not None and packet.pts < self.reset_at:
            return  # shown before the keyframe it follows: needs what was not decoded, serves no target
        wanted = self._claim(packet)
        self.pending.append((packet, wanted))
        self.pending_bytes += packet.size
        if wanted or self.pending_bytes > MAX_PENDING_BYTES or len(self.pending) > MAX_PENDING_PACKETS:
            self._decode_pending()

    def _start_here_if_possible(self, packet: Packet) -> None:
        """Forget what no target needs any more: all before a reset, or before the last but one recovery point."""
        if self.bits.is_reset(packet):
            self._forget_pending()
            self._drain()
            self.reset_at = packet.pts
        elif self.bits.is_recovery(packet):
            if self.recovery is not None and self.recovery > 0:
                self._drain()
                kept = self.pending[self.recovery :]
                self._forget_pending()
                self.reset_at = kept[0][0].pts
                self.pending = [pair for pair in kept if pair[0].pts >= self.reset_at]
                self.pending_bytes = sum(pair[0].size for pair in self.pending)
            self.recovery = len(self.pending)

    def _claim(self, packet: Packet) -> bool:
        """Give the packet's frame to the targets it is on screen at."""
        if packet.is_discard:
            return False
        after, wanted = self._after(packet.pts), False
        # Decode order is not time order: a later frame may be settled first, so all open targets are looked at.
        first = bisect.bisect_left(self.targets, packet.pts)
        for target in self.targets[first:]:
            if after is not None and target >= after:
                break
            self.shown[target] = packet.pts
            wanted = True
        while self.next < len(self.targets) and self.targets[self.next] in self.shown:
            self.next += 1
        if wanted:
            self.expected.add(packet.pts)
        return wanted

    def _decode_pending(self) -> None:
        for packet, wanted in self.pending:
            if wanted or not self.bits.may_drop(packet):
                self.video.codec.skip_frame = "DEFAULT" if wanted else self.unwanted
                self._decode(packet)
        self._forget_pending()

    def _forget_pending(self) -> None:
        self.recovery = None
        self.pending = []
        self.pending_bytes = 0

    def _decode(self, packet: Packet | None) -> None:
        try:
            frames = self.video.decode(packet)
        except av.error.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            raise Unproven(f"a packet failed: {error.strerror or error}") from error
        self.dirty = packet is not None
        for frame in frames:
            if frame.pts in self.expected:
                self.expected.discard(frame.pts)
                self.take(frame.pts, frame)

    def _drain(self) -> None:
        """Bring out what the decoder holds; it must be all that is expected."""
        if self.dirty:
            self.video.codec.skip_frame = "DEFAULT"
            self._decode(None)
            self.video.codec.flush_buffers()
        if self.expected:
            raise Unproven("a packet gave no frame")


def decode_all(video: Video, targets: list[int], take: Take) -> tuple[dict[int, int], float, int]:
    """Decode every packet from well before the first target to the last; the frame on screen at each target.

    For what is damaged, dropped or out of order: only frames that came out count. Returns target -> ticks of its frame,
    the coverage and the packets that failed.
    """
    bits = Bitstream(video.codec)
    if bits.sparse and _may_seek(video):
        packets = land(video, bits, targets[0], DAMAGE_MARGINS_S)
        if packets is not None:
            found = _decode_packets(video, packets, targets, take)
            if len(found[0]) == len(targets):
                return found
    video.rewind()
    return _decode_packets(video, video.packets(), targets, take)


def _decode_packets(
    video: Video, packets: Iterator[Packet], targets: list[int], take: Take
) -> tuple[dict[int, int], float, int]:
    table, bad = Table(), 0
    came: set[int] = set()
    waiting: list[tuple[int, VideoFrame]] = []
    screen = Screen(targets, take)
    video.codec.skip_frame = "DEFAULT"
    for packet in _and_drain(packets):
        failed = packet is not None and packet.is_corrupt
        if packet is not None:
            table.add(packet)
        try:
            frames = video.decode(packet)
        except av.error.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            frames, failed = [], True
        bad += failed
        arrived = [(frame.pts, frame) for frame in frames if frame.pts is not None]
        came.update(ticks for ticks, _ in arrived)
        waiting = sorted(waiting + arrived, key=lambda pair: pair[0])
        while len(waiting) > (OUT_OF_ORDER if packet is not None else 0):
            screen.show(*waiting.pop(0))
        if screen.next == len(targets):
            break
    screen.end()
    return screen.shown, _coverage(table, came, targets) if bad else 1.0, bad


class Screen:
    """What is on screen, frame after frame; each target gets the frame shown when its time has come."""

    def __init__(self, targets: list[int], take: Take) -> None:
        self.targets, self.take, self.next = targets, take, 0
        self.shown: dict[int, int] = {}
        self.held: tuple[int, VideoFrame] | None = None

    def show(self, ticks: int, frame: VideoFrame) -> None:
        if self.held is not None and ticks <= self.held[0]:
            return  # it comes too late to be seen
        self._serve_until(ticks)
        self.held = ticks, frame

    def end(self) -> None:
        self._serve_until(1 << 62)

    def _serve_until(self, ticks: int) -> None:
        while self.held is not None and self.next < len(self.targets) and self.targets[self.next] < ticks:
            held, frame = self.held
            if self.targets[self.next] >= held:
                if held not in self.shown.values():
                    self.take(held, frame)
                self.shown[self.targets[self.next]] = held
            self.next += 1


def _coverage(table: Table, came: set[int], targets: list[int]) -> float:
    """Share of the demuxed time between first and last target whose frames came out."""
    shown = sorted(set(table.ticks))
    first = max(0, bisect.bisect_right(shown, targets[0]) - 1)
    ends = shown[1:] + [table.last + max(table.last_length, 1)]
    spans = [(ticks, end - ticks) for ticks, end in zip(shown, ends, strict=True)][first:]
    total = sum(span for _, span in spans)
    return sum(span for ticks, span in spans if ticks in came) / total if total else 0.0


# --- decord -----------------------------------------------------------------------------------------------------------

# Measured (benchmarks/decode.py): planned PyAV leaves out pictures that decord decodes, and is cheaper wherever there
# is something to leave out; on a video of no more frames than a clip there is not. Elsewhere decord, with an FFmpeg of
# its own, is the second try where PyAV's has crashed or hung.
DECORD_FRAMES = 32


def frames_for_decord(video: Video) -> list[int] | None:
    """Presentation ticks of all frames, by decord's index, where decord is proven to number and show them alike.

    The evidence (tests/pipeline/test_decode.py) covers 8-bit 4:2:0 H.264 in MP4 and QuickTime: there its pixels equal
    PyAV's to the last bit. Everything decord is known to get wrong is excluded by the packet table: edit lists, times
    missing or doubled, damage, parameter sets that change on the way.
    """
    codec = video.codec
    if not video.indexed() or codec.name != "h264" or codec.pix_fmt != "yuv420p" or codec.color_range == 2:
        return None
    if os.path.getsize(video.path) > WHOLE_SCAN_BYTES:
        return None
    bits, origin, ticks = Bitstream(codec), video.origin(), list[int]()
    video.rewind()
    for packet in video.packets():
        if packet.pts is None or packet.is_discard or packet.is_corrupt or bits.has_parameters(packet):
            return None
        ticks.append(packet.pts)
    ticks.sort()
    unique = all(a < b for a, b in pairwise(ticks))
    return ticks if unique and len(ticks) == video.stream.frames and ticks[0] == origin.ticks else None


def decode_with_decord(video: Video, frames: list[int], targets: list[int], studio: "Studio") -> dict[int, int]:
    """Target -> ticks of the frame on screen. Raises Unproven where decord sees another video than PyAV."""
    import decord  # 50 ms and 100 MB that most children never need

    decord.logging.set_level(decord.logging.QUIET)
    origin = video.origin()
    upright = (origin.width, origin.height) if origin.turn % 2 else (origin.height, origin.width)
    with open(video.path, "rb") as file:  # by descriptor: decord wants UTF-8 names
        try:
            reader = decord.VideoReader(f"/proc/self/fd/{file.fileno()}", num_threads=1)
            starts = reader.get_frame_timestamp(range(len(reader)))[:, 0]
            ours = np.array([video.seconds(ticks) for ticks in frames])
            if len(starts) != len(frames) or np.abs(starts - starts[0] - ours + ours[0]).max() > 1e-3:
                raise Unproven("decord numbers the frames otherwise")
            shown = {target: frames[bisect.bisect_right(frames, target) - 1] for target in targets}
            for ticks in sorted(set(shown.values())):
                pixels = reader[bisect.bisect_left(frames, ticks)].asnumpy()
                if pixels.shape != (*upright, 3):
                    raise Unproven("decord shows another size")
                studio.take_rgb(ticks, pixels)
        except (decord.DECORDError, RuntimeError) as error:
            raise Unproven(f"decord: {error}") from error
    return shown


# --- an item: clips of one video --------------------------------------------------------------------------------------


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


@dataclass(frozen=True)
class Item:
    """What an item's decoding gave: by clip, ticks of its frames; and the pictures by ticks."""

    clips: list[tuple[ClipPlan, list[int]]]
    pictures: dict[int, Picture]
    seconds: dict[int, float]
    decoder: str
    coverage: float
    bad_packets: int


def decode_item(
    video: Video,
    clips: list[ClipPlan],
    model: ResizeRecipe,
    encoder: ResizeRecipe | None,
    avoid: str | None,
    announce: Callable[[str], None],
) -> Item:
    """Decode consecutive clips. `avoid` names a decoder whose child died on this video; `announce` tells which runs."""
    origin = video.origin()
    studio = Studio(video, origin.turn, model, encoder)
    targets = sorted({origin.ticks + video.ticks(t) for clip in clips for t in clip.targets_s})
    end = origin.ticks + video.ticks(clips[-1].end_s)
    decoder, coverage, bad = "decord", 1.0, 0
    try:
        if origin.absurd:
            raise Unproven("an absurd display matrix")
        frames = frames_for_decord(video) if _wants_decord(video, avoid) else None
        announce("decord" if frames else "pyav")
        if frames:
            shown = decode_with_decord(video, frames, targets, studio)
        else:
            decoder, shown = "pyav", SparsePass(video, targets, end, studio.take).run()
    except Unproven:
        studio.pictures.clear()
        announce("pyav")
        decoder = "pyav"
        shown, coverage, bad = decode_all(video, targets, studio.take)
    by_clip = [(clip, _frames_of(clip, video, origin, shown)) for clip in clips]
    seconds = {ticks: video.seconds(ticks - origin.ticks) for ticks in studio.pictures}
    return Item(by_clip, studio.pictures, seconds, decoder, coverage, bad)


def _wants_decord(video: Video, avoid: str | None) -> bool:
    return avoid == "pyav" or (avoid is None and 0 < video.stream.frames <= DECORD_FRAMES)


def _frames_of(clip: ClipPlan, video: Video, origin: Origin, shown: dict[int, int]) -> list[int]:
    """Ticks of the clip's frames: with `unique`, those no earlier target of the video has taken."""
    frames = [shown[at] for t in clip.targets_s if (at := origin.ticks + video.ticks(t)) in shown]
    if not clip.unique:
        return frames
    before = None if clip.before_s is None else origin.ticks + video.ticks(clip.before_s)
    return [ticks for ticks in dict.fromkeys(frames) if before is None or ticks > before]


# --- the child --------------------------------------------------------------------------------------------------------


class Shelf:
    """Keeps the video of the last request open: probe and decode of one file mostly follow each other."""

    def __init__(self) -> None:
        self.key: tuple[object, ...] = ()
        self.video: Video | None = None

    def take(self, path: str, bounds: Bounds, beat: Beat, need: Need | None = None) -> Video:
        """An opened Video of the file as it is now; the caller puts it back unless it failed."""
        key, video, self.video = (path, bounds, _identity(path)), self.video, None
        if video is not None and key == self.key:
            video.beat, video.furthest, video.need = beat, -1, need
            return video
        if video is not None:
            video.close()
        self.key = key
        return Video(path, bounds, beat, need)

    def put_back(self, video: Video) -> None:
        self.video = video


def _identity(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def answer(shelf: Shelf, request: dict[str, Any], out: int) -> None:
    """Serve one request; whatever is wrong with the video becomes an answer too."""
    last = time.monotonic()

    def beat() -> None:
        nonlocal last
        if time.monotonic() - last > BEAT_S:
            last = time.monotonic()
            send(out, {"is": "beat"})

    def need(start: int, end: int) -> tuple[int, int]:
        send(out, {"is": "need", "start": start, "end": end})
        here = receive(0)[0]["here"]
        return int(here[0]), int(here[1])

    try:
        video = shelf.take(request["path"], Bounds(**request["bounds"]), beat, need if request.get("sparse") else None)
        try:
            serve(video, request, out)
        except BaseException:  # whatever ends it, the file is closed; raised again
            video.close()
            raise
        shelf.put_back(video)
    except VideoError as error:
        send(out, {"is": "error", "class": type(error).__name__, "message": str(error)})
    except MemoryError:
        limit = request["bounds"]["memory_bytes"]
        send(out, {"is": "error", "class": "TooLarge", "message": f"it wants more than {limit} bytes of memory"})


def serve(video: Video, request: dict[str, Any], out: int) -> None:
    if request["do"] == "probe":
        send(out, {"is": "probe", **asdict(probe(video, parse_sampling(request["sampling"])))})
    else:
        clips = [ClipPlan(**clip | {"targets_s": tuple(clip["targets_s"])}) for clip in request["clips"]]
        recipes = [ResizeRecipe(**r) if r else None for r in (request["model"], request["encoder"])]
        assert recipes[0] is not None
        item = decode_item(
            video,
            clips,
            recipes[0],
            recipes[1],
            request["avoid"],
            lambda name: send(out, {"is": "beat", "decoder": name}),
        )
        for clip, ticks in item.clips:
            if ticks:
                _send_clip(out, clip, [item.pictures[t] for t in ticks], [item.seconds[t] for t in ticks])
        send(out, {"is": "done", "decoder": item.decoder, "coverage": item.coverage, "bad_packets": item.bad_packets})


def _send_clip(out: int, clip: ClipPlan, pictures: list[Picture], pts_s: list[float]) -> None:
    shape = pictures[0].model.shape
    other = None if pictures[0].encoder is None else pictures[0].encoder.shape
    header = {
        "is": "clip",
        "clip_index": clip.clip_index,
        "pts_s": pts_s,
        "shape": shape,
        "encoder_shape": other,
        "thumbnail_bytes": [len(p.thumbnail) for p in pictures],
    }
    arrays = [p.model for p in pictures] + [p.encoder for p in pictures if p.encoder is not None]
    send(out, header, *(np.ascontiguousarray(a).reshape(-1).data for a in arrays), *(p.thumbnail for p in pictures))


def confine(memory_bytes: int, parent: int) -> None:
    """Limits of this process: memory, no core dump, and death with its owner."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(1, signal.SIGKILL, 0, 0, 0) != 0:  # PR_SET_PDEATHSIG
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before the call above
        os._exit(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def main(parent: int, memory_bytes: int) -> None:
    confine(memory_bytes, parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the owner's business
    out = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints must not land among the answers
    av.logging.set_level(None)
    send(out, {"is": "ready"})
    shelf = Shelf()
    try:
        while True:
            request, _ = receive(0)
            answer(shelf, request, out)
    except PipeClosed:
        pass


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
