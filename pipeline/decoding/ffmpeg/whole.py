"""Every packet decoded, for what is damaged, dropped or out of order: what comes out is kept, and counted."""

import bisect
from collections.abc import Iterator

import av
from av.video.frame import VideoFrame

from pipeline.decoding.ffmpeg.bitstream import Bitstream, Packet
from pipeline.decoding.ffmpeg.probe import Table
from pipeline.decoding.ffmpeg.sparse import Take, land
from pipeline.decoding.ffmpeg.video import Video, and_drain

OUT_OF_ORDER = 2  # frames; where a container stores decoding times only, B-frames come out with swapped times
DAMAGE_MARGINS_S = (10.0, 60.0)


def decode_all(video: Video, targets: list[int], take: Take) -> tuple[dict[int, int], float, int]:
    """Decode every packet from well before the first target to the last; the frame on screen at each target.

    For what is damaged, dropped or out of order: only frames that came out count. Returns target -> ticks of its frame,
    the coverage and the packets that failed.
    """
    bits = Bitstream(video.codec)
    if bits.sparse and video.may_seek():
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
    for packet in and_drain(packets):
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
