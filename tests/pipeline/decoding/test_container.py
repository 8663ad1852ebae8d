"""The allow-list of containers: what is told by content, and that nothing special is ever opened."""

import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.decoding.ffmpeg.container import container_of, sniff
from pipeline.errors import NotAVideo, ReadFailed, Refused, SpecialFile, VideoError
from tests.videos import OPEN, hostile_video, needs_videos, open_video

TEXTS = {
    "#EXTM3U\n#EXT-X-VERSION:3\n": "playlist",
    "\ufeff#EXTM3U\n": "playlist",
    "\n\n  #EXTM3U\n": "playlist",
    "ffconcat version 1.0\nfile a.mp4": "concat",
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n": "SDP",
    "[playlist]\nFile1=http://x": "PLS",
    "<ASX version='3.0'>": "ASX",
    "<?xml version='1.0'?>\n<MPD xmlns='urn:mpeg:dash:schema:mpd:2011'>": "DASH",
    "<SmoothStreamingMedia MajorVersion='2'>": "Smooth",
    "RTSPtextrtsp://127.0.0.1/x": "RTSP",
    "http://127.0.0.1:18999/x.mp4": "URL",
    "<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'>": "SVG",
}
IMAGES = {
    "PNG": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "JPEG": b"\xff\xd8\xff\xe0\0\x10JFIF",
    "WebP": b"RIFF\x10\0\0\0WEBPVP8 ",
    "TIFF": b"II*\0\x08\0\0\0",
    "BMP": b"BM\x36\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0",
    "PNM": b"P6\n8 8\n255\n",
    "avif": b"\0\0\0\x20ftypavif\0\0\0\0avifmif1",
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "JPEG XL": b"\0\0\0\x0cJXL \r\n\x87\n",
}


@pytest.mark.parametrize("text", TEXTS)
def test_texts_that_read_other_files_are_refused(text: str) -> None:
    with pytest.raises(Refused, match=TEXTS[text]):
        sniff(text.encode())


@pytest.mark.parametrize("kind", IMAGES)
def test_still_images_are_refused(kind: str) -> None:
    with pytest.raises(Refused, match=kind):
        sniff(IMAGES[kind])


@pytest.mark.parametrize("head", [b"", b"\0" * 4096, b"hello, this is text", b"DFIA\0\0", b"\x7fELF", b"PK\3\4"])
def test_anything_else_is_no_video(head: bytes) -> None:
    with pytest.raises(NotAVideo):
        sniff(head)


@given(st.binary(max_size=300))
def test_any_bytes_give_an_allowed_container_or_a_video_error(head: bytes) -> None:
    allowed = {"mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "flv", "ogg", "gif", "asf", "mxf", "ivf", "rm"}
    with suppress(VideoError):
        assert sniff(head).demuxer in allowed | {"h264", "hevc"}


@needs_videos
@pytest.mark.parametrize("name", OPEN)
def test_real_files_are_told_by_content(name: str, tmp_path: Path) -> None:
    by_suffix = {".mkv": "matroska", ".webm": "webm", ".ts": "mpegts", ".ogv": "ogg", ".ismv": "mp4"}
    suffix = Path(name).suffix
    renamed = tmp_path / "x.txt"
    renamed.symlink_to(open_video(name))
    assert container_of(str(renamed)).name == by_suffix.get(suffix, suffix[1:]) or name.startswith("fate_dv84")


@needs_videos
@pytest.mark.parametrize("name", ["attack_hls_crossfile.mp4", "attack_ffconcat_relative.mp4", "attack_dash_local.mpd"])
def test_attacks_are_refused(name: str) -> None:
    with pytest.raises(Refused):
        container_of(hostile_video(name))


def test_special_files_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "dangling.mp4").symlink_to("missing")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "folder.mp4").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path)  # socket paths are short
        listener.bind("socket.mp4")
        for name in ("fifo.mp4", "dangling.mp4", "loop.mp4", "folder.mp4", "socket.mp4"):
            with pytest.raises(SpecialFile):
                container_of(str(tmp_path / name))
    with pytest.raises(SpecialFile, match="character device"):
        container_of("/dev/zero")


def test_missing_and_sparse(tmp_path: Path) -> None:
    with pytest.raises(ReadFailed, match="no such file"):
        container_of(str(tmp_path / "missing.mp4"))
    with open(tmp_path / "sparse.mp4", "wb") as file:
        file.truncate(8 << 30)
    with pytest.raises(NotAVideo, match="zero"):
        container_of(str(tmp_path / "sparse.mp4"))
    if os.geteuid() != 0:  # root reads everything
        (tmp_path / "unreadable.mp4").touch(mode=0)
        with pytest.raises(ReadFailed, match="ermission"):
            container_of(str(tmp_path / "unreadable.mp4"))
