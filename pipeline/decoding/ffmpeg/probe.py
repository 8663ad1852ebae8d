"""One look at a video: what its header and packets say, held against each other."""

import contextlib
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime

import av
import numpy as np

from pipeline.decoding.ffmpeg.bitstream import Packet, resets_at_keyframes
from pipeline.decoding.ffmpeg.video import HeaderOnly, Origin, Video, and_drain
from pipeline.decoding.sampling import Every, Sampling, count_targets
from pipeline.errors import TooLarge
from pipeline.types import Probe

WHOLE_SCAN_BYTES = 32 << 20  # up to this size the probe demuxes the whole file; above, its head and tail


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
        rate = float(video.stream.average_rate or 0) or 1.0
        targets = tuple(times[i] for i in sampling.indices(len(times), rate))
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
    may_seek = resets_at_keyframes(video.codec.name) and video.may_seek()
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
    for packet in and_drain(video.packets()):
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
