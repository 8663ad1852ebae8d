"""An archive of everything bad: one row a file, healthy neighbours untouched, nothing opened, nothing called."""

import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.jobs.conftest import index_job, job
from tests.jobs.tables import KEYS, NOT_COMPARED, records, rows
from tests.videos import VIDEOS, needs_videos

FLAGS = ("--max-new-tokens", "4", "--caption", "none", "--max-failed", "1000")
SMALL = ("tiny_valid.mp4", "attack_hls_ssrf_loopback.mp4", "attack_ffconcat_renamed.mp4", "attack_hls_local_file.m3u8")
SMALL += ("made_header_65535x65535.mp4", "made_zero_byte.mp4", "made_text_renamed.mp4", "attack_dash_local.mpd")
_OPENED = 0x20 | 0x01  # IN_OPEN | IN_ACCESS


@contextmanager
def listener(port: int) -> Iterator[list[bytes]]:
    """What anybody says to 127.0.0.1:port meanwhile."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(0.2)
        stop = threading.Event()

        def listen() -> None:
            while not stop.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.settimeout(1.0)
                    heard.append(connection.recv(1000))

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield heard
        finally:
            stop.set()
            thread.join()


@contextmanager
def opened(*paths: Path) -> Iterator[list[int]]:
    """Inotify events (opened, read) of files meanwhile, by any process."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    assert descriptor >= 0, os.strerror(ctypes.get_errno())
    for path in paths:
        assert libc.inotify_add_watch(descriptor, os.fsencode(path), _OPENED) >= 0
    seen: list[int] = []
    try:
        yield seen
        with suppress(BlockingIOError):
            seen.append(len(os.read(descriptor, 65536)))
    finally:
        os.close(descriptor)


def test_the_instruments_work(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_bytes(b"x")
    with opened(canary) as seen:
        canary.read_bytes()
    assert seen
    with listener(18999) as heard, socket.create_connection(("127.0.0.1", 18999)) as call:
        call.sendall(b"hello")
    assert heard == [b"hello"]


def index_with_traps(archive: Path, index: Path, outside: Path) -> None:
    """Index `archive`, which also gets files that point outside of it; nothing outside is opened or called."""
    outside.mkdir()
    canary = shutil.copy(VIDEOS / "hostile" / "tiny_valid.mp4", outside / "canary.mp4")
    (archive / "link.mp4").symlink_to(canary)
    (archive / "playlist.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{canary}\n#EXT-X-ENDLIST\n")
    (archive / "concat.mp4").write_text(f"ffconcat version 1.0\nfile '{canary}'\n")
    (archive / "asks.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:18999/x.ts\n#EXT-X-ENDLIST\n")
    with listener(18999) as heard, opened(canary) as seen:
        ended = index_job([archive], index, *FLAGS)
    assert ended.code == 0, ended.err
    assert heard == []
    assert seen == []
    audit = job("verify", "--index", str(index))
    assert audit.code == 0, audit.err


def listed_files(archive: Path) -> set[str]:
    """What a folder root should list, found without the listing: names of entries with a listed extension."""
    endings = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".ts", ".flv", ".ogv", ".ismv", ".gif", ".m3u8", ".mpd")
    found = set()
    for folder, folders, files in os.walk(os.fsencode(archive)):
        names = (*folders, *files)  # a folder named like a video is a row that says so
        found |= {os.path.join(folder, name) for name in names if os.fsdecode(name).lower().endswith(endings)}
    return {os.fsdecode(path) for path in found}


def assert_neighbours_equal(mixed: Path, alone: Path) -> None:
    """Every row of the healthy archive stands in the other index, equal but for logs and wall-clock."""
    for table in KEYS:
        if not rows(alone, table).num_rows:
            continue
        left, right = records(alone, table), records(mixed, table)
        assert left.keys() <= right.keys(), table
        for key, row in left.items():
            different = {c for c in row if c not in NOT_COMPARED and row[c] != right[key][c]}
            assert not different - {"embedding", "boundary_score", "root"}, (table, key, different)


@needs_videos
def test_hostile_files_are_rows_and_nothing_else(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    for name in SMALL:
        shutil.copyfile(VIDEOS / "hostile" / name, archive / name)
    os.mkfifo(archive / "fifo.mp4")
    shutil.copyfile(VIDEOS / "hostile" / "tiny_valid.mp4", archive / "http:127.0.0.1:18999?x.mp4")
    shutil.copyfile(VIDEOS / "hostile" / "tiny_valid.mp4", os.fsencode(archive) + b"/bad\xff.mp4")
    index_with_traps(archive, tmp_path / "index", tmp_path / "outside")
    videos = records(tmp_path / "index", "videos").values()
    assert len(videos) == len(listed_files(archive)) == len(SMALL) + 7
    classes = {v["name"]: v["error_class"] for v in videos}
    assert classes["fifo.mp4"] == "SpecialFile"
    assert classes["link.mp4"] == "OutsideArchive"
    refused = [n for n in classes if n.startswith(("attack", "playlist", "concat", "asks"))]
    assert {classes[n] for n in refused} == {"Refused"}
    valid = [n for n in classes if n.startswith(("tiny_valid", "http", "bad"))]
    assert [classes[n] for n in valid] == [None] * 3, "the valid clip under three names"


@needs_videos
@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_everything_hostile_beside_the_open_clips(tmp_path: Path) -> None:
    """DESIGN sections 2 and 7: one row a listed file, and the open clips' rows as without the hostile ones."""
    archive = tmp_path / "archive"
    shutil.copytree(VIDEOS / "open", archive / "open")
    assert index_job([archive], tmp_path / "alone", *FLAGS).code == 0
    shutil.copytree(VIDEOS / "hostile", archive / "hostile")
    subprocess.run(["sh", str(VIDEOS / "make_special.sh"), str(archive)], check=True)
    index_with_traps(archive, tmp_path / "index", tmp_path / "outside")
    assert len(records(tmp_path / "index", "videos")) == len(listed_files(archive))
    assert_neighbours_equal(tmp_path / "index", tmp_path / "alone")
