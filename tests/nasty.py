"""Hostile files made here: lying headers, references to elsewhere, cut and crossed formats, names that mean something.

Each is made from a healthy video or from nothing. `outside` is a video that no file may lead a decoder to, and
127.0.0.1:18999 is where nobody may call.
"""

import io
import os
import struct
import wave
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

URL = "http://127.0.0.1:18999/x"


def healthy(container: str, options: dict[str, str] | None = None, codec: str = "libx264", frames: int = 12) -> bytes:
    """A video of 64 x 48 at 4 frames a second."""
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options or {}) as out:
        stream: Any = out.add_stream(codec, rate=4)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = Fraction(1, 4)
        for i in range(frames):
            picture = np.full((48, 64, 3), 20 * i % 256, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                out.mux(packet)
        for packet in stream.encode():
            out.mux(packet)
    return file.getvalue()


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + kind + body


PATHS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf"}


def edited(data: bytes, edit: Callable[[bytes, bytes], bytes | None]) -> bytes:
    """`data` with each box of `edit(kind, body)` -> new body (None: as it was); sizes of what is around it follow.

    The movie header lies behind the media here, so no chunk moves.
    """
    out, at = b"", 0
    while at + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + size]
        changed = edit(kind, body)
        if changed is None:
            changed = edited(body, edit) if kind in PATHS else body
        out += box(kind, changed)
        at += size
    return out


def patched(kind: bytes, at: int, value: bytes) -> bytes:
    """A healthy MP4 in which the bytes at a place of each box of that kind are others."""
    return edited(healthy("mp4"), lambda k, body: body[:at] + value + body[at + len(value) :] if k == kind else None)


def with_edits(*entries: tuple[int, int, int]) -> bytes:
    """A healthy MP4 with this edit list: (duration, media time, rate) each."""
    table = struct.pack(">II", 0, len(entries)) + b"".join(struct.pack(">IiI", *entry) for entry in entries)

    def edit(kind: bytes, body: bytes) -> bytes | None:
        if kind == b"edts":
            return b""
        return box(b"edts", box(b"elst", table)) + edited(body, edit) if kind == b"trak" else None

    return edited(healthy("mp4"), edit)


def with_reference(kind: bytes, target: bytes) -> bytes:
    """An MP4 whose samples are said to lie in another file."""
    entry = box(kind, b"\0\0\0\0" + target + b"\0")
    dref = struct.pack(">II", 0, 1) + entry
    return edited(healthy("mp4"), lambda k, body: dref if k == b"dref" else None)


def alias(path: str) -> bytes:
    """A QuickTime alias record with an absolute path, as FFmpeg reads it."""
    name, text = b"outside.mp4", path.encode()
    head = b"\0" * 6 + struct.pack(">HH", 150, 2) + b"\0\0" + b"\4disk".ljust(28, b"\0") + b"\0" * 12
    return head + bytes([len(name)]) + name.ljust(63, b"\0") + b"\0" * 16 + struct.pack(">hh", 0, 1) + b"\0" * 16 + (
        struct.pack(">HH", 2, len(text)) + text.ljust(len(text) + len(text) % 2, b"\0")
        + struct.pack(">HH", 18, len(text)) + text.ljust(len(text) + len(text) % 2, b"\0") + b"\xff\xff\0\0"
    )  # fmt: skip


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old), old
    assert len(old) == len(new)
    return data.replace(old, new)


def _wider(data: bytes, width: int, height: int) -> bytes:
    """Two more bytes in the sizes of everything around: Void elements behind are shortened to make room."""
    old = b"\xb0\x81\x40\xba\x81\x30"
    assert data.count(old) == 1
    new = b"\xb0\x82" + struct.pack(">H", width) + b"\xba\x82" + struct.pack(">H", height)
    at = data.index(old)
    return _grown(data[:at] + new + data[at + len(old) :], at, len(new) - len(old))


def _grown(data: bytes, at: int, by: int) -> bytes:
    """Sizes of the EBML elements around `at` raised: Video, TrackEntry, Tracks have sizes of one or eight bytes."""
    out = bytearray(data)
    for name in (b"\xe0", b"\xae", b"\x16\x54\xae\x6b"):
        place = data.rindex(name, 0, at) + len(name)
        if out[place] == 1:
            out[place + 1 : place + 8] = (int.from_bytes(out[place + 1 : place + 8], "big") + by).to_bytes(7, "big")
        else:
            out[place] += by
    return bytes(out)


def png() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="image2pipe") as out:
        stream: Any = out.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        for packet in stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")):
            out.mux(packet)
    return file.getvalue()


def wav() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(bytes(16000))
    return file.getvalue()


def zipped(name: str, data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        out.writestr(name, data)
    return file.getvalue()


def nested(kind: bytes, depth: int) -> bytes:
    body = b""
    for _ in range(depth):
        body = box(kind, body)
    return box(b"ftyp", b"isom\0\0\0\0") + body


def texts(outside: Path) -> dict[str, str]:
    """Playlists and references, under names of videos."""
    path = str(outside)
    return {
        "hls.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{path}\n#EXT-X-ENDLIST\n",
        "hls_bom.mkv": f"\ufeff  \n#EXTM3U\n#EXTINF:1,\n{URL}.ts\n",
        "hls_key.ts": f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{URL}"\n#EXTINF:1,\n{path}\n',
        "hls_no_header.mp4": f"#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{path}\n",
        "concat.mp4": f"ffconcat version 1.0\nfile '{path}'\n",
        "concat_space.mov": f"\n\n  ffconcat version 1.0\nfile {URL}\n",
        "concat_bare.mp4": f"file '{path}'\n",
        "dash.mov": f'<?xml version="1.0"?><MPD><Period><BaseURL>{URL}</BaseURL></Period></MPD>',
        "dash_comment.mp4": f"<!-- {'x' * 5000} --><MPD><BaseURL>{path}</BaseURL></MPD>",
        "sdp.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 18999 RTP/AVP 96\n",
        "rtsp.mov": "RTSPtext rtsp://127.0.0.1:18999/x\r\n",
        "asx.wmv": f'<ASX version="3"><entry><ref href="{URL}"/></entry></ASX>',
        "ram.mp4": URL,
        "avs.avi": f'AVISource("{path}")\n',
        "vpy.avi": f'import vapoursynth as vs\nvs.core.lsmas.LWLibavSource("{path}").set_output()\n',
        "srt.mkv": f"1\n00:00:00,000 --> 00:00:01,000\n{path}\n",
        "ssa.mkv": f"[Script Info]\nVideo File: {path}\n",
        "vobsub.vob": f"# VobSub index file, v7\nid: en, index: 0\n{path}\n",
        "lavfi.mp4": f"movie={path}[out0]\n",
        "ffmetadata.mp4": f";FFMETADATA1\ntitle={path}\n",
        "svg.mp4": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="file://{path}"/></svg>',
        "imf.mxf": f'<?xml version="1.0"?><CompositionPlaylist><Id>{path}</Id></CompositionPlaylist>',
    }


def binaries(outside: Path) -> dict[str, bytes]:
    """Lies and cuts in containers that are allowed, and files of other kinds."""
    mp4, mkv, webm = healthy("mp4"), healthy("matroska"), healthy("webm", codec="libvpx")
    ts, flv, avi = healthy("mpegts"), healthy("flv"), healthy("avi")
    fragmented = healthy("mp4", {"movflags": "frag_keyframe+empty_moov"})
    moov = mp4.index(b"moov") - 4
    whole = {
        "edit_negative.mp4": with_edits((2000, -5, 65536)),
        "edit_far.mp4": with_edits((0x7FFFFFFF, 0x7FFFFFFF, 65536)),
        "edit_empty.mp4": with_edits((0, 0, 0)),
        "edit_loop.mp4": with_edits(*[(1000, 0, 65536)] * 64),
        "edit_rates.mp4": with_edits((1000, 0, 0x7FFFFFFF), (1, 1, 0), (0xFFFFFFFF, -1, 1)),
        "fragmented.mp4": fragmented,
        "fragment_cut.mp4": fragmented[: len(fragmented) * 2 // 3],
        "fragment_without_header.mp4": fragmented[fragmented.index(b"moof") - 4 :],
        "mdat_64_bit_lie.mp4": mp4[:moov].replace(struct.pack(">I", 8) + b"free", b"\0\0\0\x08free")
        + struct.pack(">I4sQ", 1, b"mdat", 0xFFFFFFFFFFFFFFFF),
        "moov_huge.mp4": mp4[:moov] + struct.pack(">I", 0x7FFFFFFF) + mp4[moov + 4 :],
        "moov_size_0.mp4": mp4[:moov] + struct.pack(">I", 0) + mp4[moov + 4 :],
        "moov_size_1.mp4": mp4[:moov] + struct.pack(">I", 1) + mp4[moov + 4 :],
        "boxes_nested.mp4": nested(b"moov", 5000),
        "traks_many.mp4": edited(mp4, lambda k, b: edited(b, lambda *_: None) + box(b"trak", b"") * 20000
                                 if k == b"moov" else None),
        "duration_0.mp4": patched(b"mvhd", 16, b"\0" * 4),
        "media_duration_0.mp4": patched(b"mdhd", 16, b"\0" * 4),
        "media_duration_max.mp4": patched(b"mdhd", 16, b"\xff" * 4),
        "timescale_0.mp4": patched(b"mdhd", 12, b"\0" * 4),
        "timescale_max.mp4": patched(b"mdhd", 12, b"\xff" * 4),
        "timescale_1.mp4": patched(b"mdhd", 12, b"\0\0\0\1"),
        "samples_4_billion.mp4": patched(b"stts", 8, b"\xff" * 4),
        "sample_lasts_for_ever.mp4": patched(b"stts", 12, b"\x7f\xff\xff\xff"),
        "stts_entries.mp4": patched(b"stts", 4, b"\x7f\xff\xff\xff"),
        "sizes_4_billion.mp4": patched(b"stsz", 8, b"\xff" * 4),
        "size_of_all.mp4": patched(b"stsz", 4, b"\x7f\xff\xff\xff"),
        "chunk_elsewhere.mp4": patched(b"stco", 8, b"\xff" * 4),
        "chunk_on_itself.mp4": patched(b"stco", 8, b"\0" * 4),
        "picture_65535.mp4": patched(b"stsd", 8 + 8 + 24, b"\xff" * 4),
        "rotation_absurd.mp4": patched(b"tkhd", 40, b"\x7f\xff\xff\xff" * 9),
        "reference_url.mp4": with_reference(b"url ", URL.encode()),
        "reference_file.mp4": with_reference(b"url ", b"file://" + os.fsencode(outside)),
        "reference_alias.mov": with_reference(b"alis", alias(str(outside))),
        "reference_movie.mov": box(b"moov", box(b"rmra", box(b"rmda", box(
            b"rdrf", b"\0\0\0\0url " + struct.pack(">I", len(URL)) + URL.encode())))),
        "compressed_header_bomb.mov": box(b"moov", box(b"cmov", box(b"dcom", b"zlib") + box(
            b"cmvd", struct.pack(">I", 0xFFFFFFF0) + b"x\x9c" + bytes(100)))),
        "mkv_127_wide.mkv": replaced(mkv, b"\xb0\x81\x40", b"\xb0\x81\x7f"),
        "mkv_65535.mkv": _wider(mkv, 65535, 65535),
        "mkv_scale_0.mkv": replaced(mkv, b"\x2a\xd7\xb1\x83\x0f\x42\x40", b"\x2a\xd7\xb1\x83\0\0\0"),
        "mkv_1e9_fps.mkv": replaced(mkv, b"\x23\xe3\x83\x84\x0e\xe6\xb2\x80", b"\x23\xe3\x83\x84\0\0\0\1"),
        "mkv_0_fps.mkv": replaced(mkv, b"\x23\xe3\x83\x84\x0e\xe6\xb2\x80", b"\x23\xe3\x83\x84\0\0\0\0"),
        "mkv_names_others.mkv": mkv + b"\x3e\x83\xbb" + bytes([0x80 | 20]) + os.fsencode(outside)[-20:],
        "mkv_unknown_size.mkv": mkv[:5] + mkv[5:].replace(b"\x1f\x43\xb6\x75\x01", b"\x1f\x43\xb6\x75\xff"),
        "mkv_voids.mkv": mkv[: mkv.index(b"\x18\x53\x80\x67")] + b"\xec\x80" * 200_000,
        "cut.webm": webm[: len(webm) // 2],
        "cut_in_header.webm": webm[:60],
        "twice.webm": webm + webm,
        "cut.ts": ts[: len(ts) // 2 + 77],
        "shifted.ts": b"\x47" + ts,
        "ts_of_nothing.ts": (b"\x47" + b"\xff" * 187) * 5000,
        "ts_no_tables.ts": ts[188 * 4 :],
        "flv_backwards.flv": flv[:13] + flv[13:][::-1],
        "avi_index_lies.avi": avi[: avi.rindex(b"idx1") + 8] + b"00dc" * 4000,
        "avi_list_huge.avi": replaced(avi, b"LIST" + avi[16:20], b"LIST\xff\xff\xff\x7f"),
        "two_formats.mp4": mp4 + mkv,
        "mp4_and_zip.mp4": mp4 + zipped("a.m3u8", b"#EXTM3U\n" + os.fsencode(outside)),
        "html_first.webm": b"<html><video src='" + URL.encode() + b"'>" + webm,
        "pdf_first.mp4": b"%PDF-1.7\n" + mp4,
        "script_first.mp4": b"#!/bin/sh\ntouch owned\n" + mp4,
        "png.mp4": png(),
        "png_with_mp4.mp4": png() + mp4,
        "avif.mp4": box(b"ftyp", b"avif\0\0\0\0avifmif1") + mp4[moov:],
        "gif_65535.gif": b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0," + bytes(8) + b"\2\2L\1\0;",
        "wav.mp4": wav(),
        "mp3.mp4": b"ID3\4\0\0\0\0\0\0" + b"\xff\xfb\x90\x64" * 500,
        "elf.mp4": b"\x7fELF\2\1\1" + bytes(5000),
        "y4m.mp4": b"YUV4MPEG2 W99999 H99999 F25:1 C420\nFRAME\n" + bytes(1000),
        "one_byte.mp4": b"\0",
        "ff.mp4": b"\xff" * 100_000,
        "only_ftyp.mp4": mp4[:32],
        "h264_bare.mp4": b"\0\0\0\1\x67" + b"\xff" * 5000,
    }  # fmt: skip
    return whole


HEALTHY_NAMES = (
    "-i.mp4", "concat:a|b.mp4", "subfile,,start,0,end,9,,:x.mp4", "data:video,x.mp4", "pipe:0.mp4", "img%03d.mp4",
    "async:cache:x.mp4", "a\nb.mp4", "'; touch owned; '.mp4", "http:127.0.0.1:18999.mp4", "[0-9]*?.mp4", "~.mp4",
)  # fmt: skip
"""Names that FFmpeg, a shell or a glob would read as something else; each holds a healthy video."""


def make(folder: Path, outside: Path, slow: bool) -> set[str]:
    """All of them in `folder`, also what takes until its deadline if `slow`. Returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts(outside).items():
        (folder / name).write_text(text)
    for name, data in (binaries(outside) | dict.fromkeys(HEALTHY_NAMES, healthy("mp4"))).items():
        (folder / name).write_bytes(data)
    sparse = {"sparse_1TiB.mp4": healthy("mp4")[:32]}
    if slow:
        sparse["sparse_1TiB.ts"] = (b"\x47" + b"\xff" * 187) * 5
    for name, head in sparse.items():
        with (folder / name).open("wb") as file:
            file.write(head)
            file.truncate(1 << 40)
    return {path.name for path in folder.iterdir()}
