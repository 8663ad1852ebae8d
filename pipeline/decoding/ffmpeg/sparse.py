"""One pass that decodes little more than the wanted frames need, or says that it cannot vouch for them."""

import bisect
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain

import av
from av.video.frame import VideoFrame

from pipeline.decoding.ffmpeg.bitstream import SKIPS_NONREF, Bitstream, Packet
from pipeline.decoding.ffmpeg.video import Video

LOOKAHEAD = 40  # packets; H.264 and HEVC reorder at most 16 frames, two packets each when coded as fields
MAX_PENDING_BYTES = 64 << 20
MAX_PENDING_PACKETS = 1000

Take = Callable[[int, VideoFrame], None]  # ticks of the frame, the frame


class Unproven(Exception):
    """The sparse pass cannot vouch for a frame: something is damaged, dropped or out of order. Decode all instead."""


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
        self.may_seek = video.may_seek()
        self.unwanted = "NONREF" if video.codec.name in SKIPS_NONREF else "DEFAULT"
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
