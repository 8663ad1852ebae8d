"""Where decoding may start, and which packets it may leave out: told by codec and bitstream, not by the container."""

import re
from collections.abc import Iterator
from typing import Any

Packet = Any  # av.Packet: generic in its stubs, not at run time

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


SKIPS_NONREF = frozenset(("h264", "mpeg1video", "mpeg2video", "mpeg4", "vc1", "wmv3"))
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
