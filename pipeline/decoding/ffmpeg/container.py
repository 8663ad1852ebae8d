"""What a file is, told by its first bytes before any decoder opens it. Knows no decoder.

FFmpeg's own probing knows hundreds of formats, among them playlists that read other files and URLs, and it heeds file
names. So the container is told here, from an allow-list, and the demuxer is named to FFmpeg, which then tries no other.
"""

import errno
import os
import stat
from dataclasses import dataclass

from pipeline.errors import NotAVideo, ReadFailed, Refused, SpecialFile

_HEAD_BYTES = 4096
_ID3_MAX_BYTES = 1 << 24
_TS_PACKETS = 5  # consecutive sync bytes that make a transport stream


@dataclass(frozen=True)
class Container:
    """`name` is for people and tables, `demuxer` is FFmpeg's own name."""

    name: str
    demuxer: str


def container_of(path: str) -> Container:
    """The container of the file at `path`, or a VideoError that says what it is instead.

    Raises SpecialFile (nothing is opened), ReadFailed, Refused (playlists, still images), NotAVideo.
    """
    return sniff(read_head(path))


def read_head(path: str) -> bytes:
    """The first bytes of a regular file. Anything else is refused unopened: opening a FIFO can block for ever."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        if os.path.islink(path):
            raise SpecialFile("a symbolic link to nothing") from error
        raise ReadFailed("no such file") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise SpecialFile("a loop of symbolic links") from error
        raise ReadFailed(f"cannot be looked at: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        raise SpecialFile(f"{_kind(mode)}, not a regular file")
    try:
        # O_NONBLOCK: should the file have become a FIFO since, opening it still returns.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ReadFailed(f"cannot be opened: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise SpecialFile("not a regular file")
        return os.pread(fd, _HEAD_BYTES, 0)
    except OSError as error:
        raise ReadFailed(f"cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    return kinds.get(stat.S_IFMT(mode), "a special file")


def sniff(head: bytes) -> Container:
    """The container whose file begins with `head`. Raises Refused or NotAVideo."""
    if not head:
        raise NotAVideo("the file is empty")
    if not head.strip(b"\0"):
        raise NotAVideo(f"the first {len(head)} bytes are zero")
    for told in (_by_magic(head), _iso_media(head), _mpeg(head)):
        if told is not None:
            return told
    _refuse_text(head)
    raise NotAVideo(f"no container we allow begins with {head[:12].hex(' ')}")


_MAGIC: tuple[tuple[int, bytes, Container], ...] = (
    (0, b"FLV\x01", Container("flv", "flv")),
    (0, b"OggS", Container("ogg", "ogg")),
    (0, b"GIF87a", Container("gif", "gif")),
    (0, b"GIF89a", Container("gif", "gif")),
    (0, bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), Container("asf", "asf")),
    (0, bytes.fromhex("060e2b34020501010d010201"), Container("mxf", "mxf")),
    (0, b"DKIF\0\0", Container("ivf", "ivf")),
    (0, b".RMF", Container("rm", "rm")),
)
_IMAGES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\x8aMNG\r\n\x1a\n", "MNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (8, b"WEBP", "WebP"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\0\0\1\0", "icon"),
    (0, b"v/1\1", "OpenEXR"),
    (0, b"SDPX", "DPX"),
    (0, b"XPDS", "DPX"),
    (0, b"#?RADIANCE", "Radiance HDR"),
)


def _by_magic(head: bytes) -> Container | None:
    for at, magic, image in _IMAGES:
        if head.startswith(magic, at) and (image != "WebP" or head.startswith(b"RIFF")):
            raise Refused(f"a still image ({image})")
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124):
        raise Refused("a still image (BMP)")
    if head[:1] == b"P" and head[1:2] in b"1234567fF" and head[2:3].isspace():
        raise Refused("a still image (PNM)")
    for at, magic, container in _MAGIC:
        if head.startswith(magic, at):
            return container
    if head.startswith(b"\x1aE\xdf\xa3"):
        return Container("webm" if b"\x42\x82\x84webm" in head[:128] else "matroska", "matroska")
    if head.startswith((b"RIFF", b"RF64", b"ON2 ")) and head[8:12] in (b"AVI ", b"AVIX", b"AVI\x19", b"AMV ", b"ON2f"):
        return Container("avi", "avi")
    return None


_STILL_BRANDS = frozenset((b"avif", b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2", b"jpeg", b"crx "))
_AUDIO_BRANDS = frozenset((b"M4A ", b"M4B ", b"M4P "))
_FIRST_BOXES = frozenset(
    (b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"wide", b"free", b"skip", b"pnot", b"sidx", b"uuid", b"udta")
)


def _iso_media(head: bytes) -> Container | None:
    """ISO base media and QuickTime: boxes of a size, a four-letter type and a body."""
    if head[4:8] not in _FIRST_BOXES or int.from_bytes(head[:4], "big") in range(2, 8):
        return None
    if head[4:8] not in (b"ftyp", b"styp"):
        return Container("mov", "mov")
    brand = head[8:12]
    if brand in _STILL_BRANDS:
        raise Refused(f"a still image (ISO media brand {brand.decode('ascii', 'replace')})")
    return Container("mov" if brand == b"qt  " else "mp4", "mov")


def _mpeg(head: bytes) -> Container | None:
    """MPEG streams, told by start codes (00 00 01 xx) or by sync bytes at equal distances."""
    for size, name in ((188, "mpegts"), (192, "m2ts"), (204, "mpegts")):
        for offset in (0, 4):
            at = range(offset, min(len(head), offset + size * _TS_PACKETS), size)
            if len(at) == _TS_PACKETS and all(head[i] == 0x47 for i in at):
                return Container(name, "mpegts")
    start = head.find(b"\0\0\1")
    if start < 0 or head[:start].strip(b"\0"):
        return None
    code = head[start + 3] if start + 3 < len(head) else 0
    if code == 0xBA:
        return Container("mpegps", "mpeg")
    if code == 0xB3:
        return Container("mpegvideo", "mpegvideo")
    return _annex_b(head, start + 3)


def _annex_b(head: bytes, at: int) -> Container | None:
    """A bare H.264 or HEVC stream begins with its parameter sets (or a delimiter before them)."""
    first = head[at : at + 2]
    if len(first) < 2:
        return None
    if first[0] in (0x40, 0x42, 0x46) and first[1] == 1:  # VPS, SPS, delimiter of HEVC
        return Container("hevc", "hevc")
    if first[0] & 0x9F in (7, 9) and first[0] != 0x07:  # SPS with nal_ref_idc, or a delimiter
        return Container("h264", "h264")
    return None


def _refuse_text(head: bytes) -> None:
    """Playlists and reference formats read other files and URLs: their name in the message, never a decoder."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    lower = text[:1024].lower()
    for mark, what in (
        (b"#extm3u", "an HLS or M3U playlist"),
        (b"#ext-x-", "an HLS playlist"),
        (b"ffconcat", "an FFmpeg concat script"),
        (b"[playlist]", "a PLS playlist"),
        (b"[reference]", "an ASX reference"),
        (b"rtsptext", "a QuickTime RTSP reference"),
        (b"rtsptextrtsp:", "a QuickTime RTSP reference"),
        (b"v=0", "an SDP session description"),
        (b"<asx", "an ASX playlist"),
        (b"<smil", "a SMIL presentation"),
    ):
        if lower.startswith(mark):
            raise Refused(what)
    for mark, what in ((b"<mpd", "a DASH manifest"), (b"<smoothstreamingmedia", "a Smooth Streaming manifest")):
        if lower.startswith(b"<") and mark in lower:
            raise Refused(what)
    if lower.startswith((b"http://", b"https://", b"rtsp://", b"file://", b"rtmp://", b"mms://")):
        raise Refused("a list of URLs")
    if lower.startswith(b"<") and b"<svg" in lower:
        raise Refused("a still image (SVG)")
