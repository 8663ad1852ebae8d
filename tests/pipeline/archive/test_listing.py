"""Listing: every name a file system can hold becomes exactly one row, and nothing is opened."""

import csv
import io
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.archive.folders import file_uri, path_of
from pipeline.archive.listing import SCHEMA, Listing, list_archive
from pipeline.archive.patterns import VIDEO_EXTENSIONS
from pipeline.errors import UsageError
from pipeline.storage.places import open_storage
from pipeline.types import video_id_of

SHARED_VIDEOS = Path(__file__).resolve().parents[3].parent / "shared" / "videos"


def touch(folder: Path, *names: str | bytes) -> None:
    for name in names:
        path = os.path.join(os.fsencode(folder), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"x")


def names(listing: Listing) -> list[str]:
    return sorted(listing.table["name"].to_pylist())


def refusals(listing: Listing) -> dict[str, str | None]:
    return {row["name"]: row["refusal"] for row in listing.table.select(["name", "refusal"]).to_pylist()}


def test_a_folder_lists_videos_by_extension_and_counts_the_rest(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.MKV", "sub/c.Gif", "sub/deep/d.m3u8", "notes.txt", "mp4", "e.mp4.part", ".hidden")
    listing = list_archive([str(tmp_path)])
    assert names(listing) == ["a.mp4", "b.MKV", "c.Gif", "d.m3u8"]
    assert listing.ignored == 4
    assert listing.table.schema == SCHEMA
    row = next(row for row in listing.table.to_pylist() if row["name"] == "a.mp4")
    status = (tmp_path / "a.mp4").stat()
    assert row["uri"] == f"file://{tmp_path}/a.mp4"
    assert row["video_id"] == video_id_of(row["uri"])
    assert row["path"] == os.fsencode(tmp_path / "a.mp4")
    assert row["version"] == f"{status.st_size}-{status.st_mtime_ns}"
    assert row["root"] == f"file://{tmp_path}"
    assert row["size_bytes"] == 1


def test_every_documented_extension_is_listed(tmp_path: Path) -> None:
    touch(tmp_path, *(f"clip.{extension}" for extension in VIDEO_EXTENSIONS))
    assert len(list_archive([str(tmp_path)]).table) == len(VIDEO_EXTENSIONS) == 26


@settings(max_examples=60, deadline=None)
@given(name=st.binary(min_size=1, max_size=60).filter(lambda b: b"/" not in b and b"\0" not in b))
def test_any_name_survives_as_a_uri(name: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("names")
    name = name + b".mp4"
    touch(folder, name)
    (row,) = list_archive([str(folder)]).table.to_pylist()
    assert re.fullmatch(r"file:///[A-Za-z0-9\-._~/%]*", row["uri"])
    assert path_of(row["uri"]) == row["path"] == os.path.join(os.fsencode(folder), name)
    assert os.path.exists(row["path"])


def test_percent_signs_are_escaped_so_that_two_names_never_share_a_uri() -> None:
    assert file_uri(b"/a b.mp4") == "file:///a%20b.mp4"
    assert file_uri(b"/a%20b.mp4") == "file:///a%2520b.mp4"
    assert file_uri("/é?#".encode()) == "file:///%C3%A9%3F%23"


@pytest.mark.skipif(not SHARED_VIDEOS.exists(), reason="../shared/videos is absent: special files not tested")
def test_special_files_and_hostile_names_become_rows(tmp_path: Path) -> None:
    subprocess.run(["sh", SHARED_VIDEOS / "make_special.sh", tmp_path], check=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.mp4"))
        listing = list_archive([str(tmp_path)])
    assert len(listing.table) == 7 + 8 + 1 - 1  # special, names, the socket; loop_dir is no video
    found = refusals(listing)
    special = {name: refusal for name, refusal in found.items() if refusal}
    assert special == {
        "fifo.mp4": "SpecialFile",
        "dangling.mp4": "SpecialFile",
        "directory_named.mp4": "SpecialFile",
        "socket.mp4": "SpecialFile",
        "symlink_to_etc_hostname.mp4": "OutsideArchive",
    }
    assert found["new\nline\ttab.mp4"] is None
    assert found[r"bad_utf8_\xff\xfe\xe9.mp4"] is None
    assert max(uri.count("/") for uri in listing.table["uri"].to_pylist()) >= 62


def test_links(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    touch(root, "real.mp4", "sub/in.mp4")
    touch(outside, "out.mp4")
    (root / "inside.mp4").symlink_to("real.mp4")
    (root / "leaves.mp4").symlink_to(outside / "out.mp4")
    (root / "climbs.mp4").symlink_to("../outside/out.mp4")
    (root / "two_steps.mp4").symlink_to("leaves.mp4")
    (root / "itself.mp4").symlink_to("itself.mp4")
    (root / "loop").symlink_to(".")
    (root / "other_folder").symlink_to(outside)
    (root / "folder.mp4").symlink_to("sub")
    listing = list_archive([str(root)])
    assert refusals(listing) == {
        "real.mp4": None,
        "in.mp4": None,
        "inside.mp4": None,
        "leaves.mp4": "OutsideArchive",
        "climbs.mp4": "OutsideArchive",
        "two_steps.mp4": "OutsideArchive",
        "itself.mp4": "SpecialFile",
        "folder.mp4": "SpecialFile",
    }
    inside = next(row for row in listing.table.to_pylist() if row["name"] == "inside.mp4")
    assert inside["path"] == os.fsencode(root / "real.mp4"), (
        "the path is resolved once, so a link changed later is moot"
    )


def test_a_folder_named_like_a_video_does_not_hide_what_is_in_it(tmp_path: Path) -> None:
    touch(tmp_path, "day.mp4/clip.mp4")
    assert refusals(list_archive([str(tmp_path)])) == {"day.mp4": "SpecialFile", "clip.mp4": None}


def test_the_same_file_through_several_roots_is_one_row(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.mp4", "a/y.mp4")
    (tmp_path / "link").symlink_to("a")
    roots = [str(tmp_path / "a"), f"{tmp_path}/link", f"{tmp_path}/a/../a/*.mp4", str(tmp_path / "link/x.mp4")]
    listing = list_archive(roots)
    assert names(listing) == ["x.mp4", "y.mp4"]
    assert set(listing.table["root"].to_pylist()) == {file_uri(os.fsencode(tmp_path / "a"))}


def test_named_files_always_get_a_row(tmp_path: Path) -> None:
    touch(tmp_path, "recording.bin", "clip.mp4")
    os.mkfifo(tmp_path / "pipe.bin")
    os.mkfifo(tmp_path / "pipe.txt")  # reading it as a manifest would block for ever
    listing = list_archive([str(tmp_path / name) for name in ("recording.bin", "pipe.bin", "pipe.txt")])
    assert refusals(listing) == {"recording.bin": None, "pipe.bin": "SpecialFile", "pipe.txt": "SpecialFile"}


def test_globs(tmp_path: Path) -> None:
    touch(tmp_path, "a1.mp4", "a2.mp4", "b1.mp4", "sub/a3.mp4", "sub/deep/a4.mp4", "a.txt", "raw.h264", ".a5.mp4")

    def found(pattern: str) -> list[str]:
        return names(list_archive([f"{tmp_path}/{pattern}"]))

    assert found("a?.mp4") == ["a1.mp4", "a2.mp4"]
    assert found("[!a]*.mp4") == [".a5.mp4", "b1.mp4"]
    assert found("[ab]1.mp4") == ["a1.mp4", "b1.mp4"]
    assert found("**/a*.mp4") == ["a1.mp4", "a2.mp4", "a3.mp4", "a4.mp4"]
    assert found("*/a*.mp4") == ["a3.mp4"]
    assert found("s*") == ["a3.mp4", "a4.mp4"], "a matched folder is listed as a folder"
    assert found("*.h264") == ["raw.h264"], "an extension that is spelt out is asked for"
    assert found("*") == [".a5.mp4", "a1.mp4", "a2.mp4", "a3.mp4", "a4.mp4", "b1.mp4"]


def test_what_exists_literally_is_never_a_glob(tmp_path: Path) -> None:
    touch(tmp_path, "[1].mp4", "1.mp4", "what?/clip.mp4", "whatx/other.mp4")
    assert names(list_archive([f"{tmp_path}/[1].mp4"])) == ["[1].mp4"]
    assert names(list_archive([f"{tmp_path}/what?"])) == ["clip.mp4"]
    os.remove(tmp_path / "[1].mp4")
    assert names(list_archive([f"{tmp_path}/[1].mp4"])) == ["1.mp4"]


def test_a_name_that_is_a_url_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "http:127.0.0.1:18999?x.mp4")
    monkeypatch.chdir(tmp_path)
    (row,) = list_archive(["http:127.0.0.1:18999?x.mp4"]).table.to_pylist()
    assert row["path"] == os.fsencode(tmp_path / "http:127.0.0.1:18999?x.mp4")


def write_manifest(folder: Path, kind: str, lines: list[bytes]) -> str:
    path = folder / f"list.{kind}"
    if kind == "txt":
        path.write_bytes(b"\n".join(lines) + b"\n")
    elif kind == "csv":
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer)
        writer.writerow(["note", "path"])
        writer.writerows(["n", os.fsdecode(line)] for line in lines)
        path.write_bytes(buffer.getvalue().encode("utf-8", "surrogateescape"))
    else:
        pq.write_table(pa.table({"path": pa.array(lines, pa.binary())}), path)
    return str(path)


@pytest.mark.parametrize("kind", ["txt", "csv", "parquet"])
def test_manifests(kind: str, tmp_path: Path) -> None:
    touch(tmp_path, "v/a.mp4", "v/with, comma.bin", b"v/\xff.mp4", "v/new\nline.mp4", "v/pct%20.mp4")
    lines = [b"v/a.mp4", os.fsencode(tmp_path / "v/with, comma.bin"), b"v/\xff.mp4", b"v/gone.mp4", b"v/a.mp4"]
    lines.append(file_uri(os.fsencode(tmp_path / "v/pct%20.mp4")).encode())
    if kind != "txt":
        lines.append(b"v/new\nline.mp4")
    listing = list_archive([write_manifest(tmp_path, kind, lines)])
    expected = {"a.mp4": None, "with, comma.bin": None, r"\xff.mp4": None, "gone.mp4": "ReadFailed", "pct%20.mp4": None}
    assert refusals(listing) == expected | ({} if kind == "txt" else {"new\nline.mp4": None})


def test_manifests_that_are_not_what_they_say_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name,size\nx,1\n")
    (tmp_path / "b.parquet").write_bytes(b"not parquet")
    with pytest.raises(UsageError, match="column named uri or path, found name, size"):
        list_archive([str(tmp_path / "a.csv")])
    with pytest.raises(UsageError, match="not a readable manifest"):
        list_archive([str(tmp_path / "b.parquet")])


@pytest.mark.parametrize(
    ("given", "said"),
    [("missing", "not found; expected a file"), ("empty", "no video found"), ("nowhere/*.mp4", "no such folder")],
)
def test_what_lists_nothing_is_said_in_one_line(given: str, said: str, tmp_path: Path) -> None:
    touch(tmp_path, "empty/readme.txt")
    with pytest.raises(UsageError, match=said) as raised:
        list_archive([f"{tmp_path}/{given}"])
    assert "\n" not in str(raised.value)
    assert given.split("/")[0] in str(raised.value)


def test_include_and_exclude(tmp_path: Path) -> None:
    touch(tmp_path, "day/a.mp4", "day/b.mp4", "night/a.mp4", "c.mkv")
    assert names(list_archive([str(tmp_path)], include=["*.mp4"], exclude=["night/*"])) == ["a.mp4", "b.mp4"]
    named = list_archive([str(tmp_path / "c.mkv")], include=["*.mp4"])
    assert names(named) == ["c.mkv"], "a file that is named is meant"


def test_absence_counts_only_where_the_listing_looked(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.mp4", "a/sub/y.mp4", "b/z.mp4")
    (tmp_path / "void").mkdir()
    listing = list_archive([str(tmp_path / "a"), str(tmp_path / "void")], exclude=["skipped/*"])

    def covers(path: str, root: str = "a") -> bool:
        return listing.covers(file_uri(os.fsencode(tmp_path / root)), file_uri(os.fsencode(tmp_path / path)))

    assert covers("a/gone.mp4")
    assert covers("a/sub/gone.mp4", root="a/sub"), "listed once under a folder inside this root"
    assert not covers("b/z.mp4", root="b")
    assert not covers("ab/x.mp4", root="ab")
    assert not covers("void/gone.mp4", root="void"), "an empty root may be a disk that is not mounted"
    assert not covers("a/skipped/x.mp4"), "left out by --exclude is not absent"

    pattern = f"{tmp_path}/a/*.mp4"
    globbed = file_uri(os.fsencode(pattern))
    gone = file_uri(os.fsencode(tmp_path / "a/gone.mp4"))
    assert list_archive([pattern]).covers(globbed, gone)
    assert not list_archive([pattern], exclude=["gone*"]).covers(globbed, gone)


def test_a_root_that_cannot_be_listed_to_the_end_says_nothing_about_absence(tmp_path: Path) -> None:
    """A folder whose path is too long to open stands for any folder that cannot be read."""
    touch(tmp_path, "x.mp4")
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=here)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        listing = list_archive([str(tmp_path)])
    finally:
        shutil.rmtree(tmp_path / ("d" * 200))
    (root,) = listing.roots
    assert names(listing) == ["x.mp4"]
    assert not root.is_complete
    assert "File name too long" in root.complaints[0]
    assert not listing.covers(root.uri, root.uri + "/gone.mp4")


def test_s3_prefix_glob_object_and_manifest(s3_url: str) -> None:
    storage = open_storage(s3_url)
    # moto answers 404 to keys with a newline, so none is tested here
    keys = ["v/a.mp4", "v/b c%20.mkv", "v/новое x.mp4", "v/notes.txt", "v/sub/d.mp4", "other/e.mp4"]
    for key in keys:
        storage.write_atomic(key, b"123")
    storage.write_atomic("v/list.txt", f"{s3_url}/v/notes.txt\nother/e.mp4\n".encode())
    storage.write_atomic("list.txt", f"{s3_url}/v/notes.txt\nother/e.mp4\nother/gone.mp4\n".encode())

    listing = list_archive([f"{s3_url}/v"])
    assert sorted(listing.table["uri"].to_pylist()) == sorted(
        f"{s3_url}/{key}" for key in ("v/a.mp4", "v/b c%20.mkv", "v/новое x.mp4", "v/sub/d.mp4")
    )
    assert listing.ignored == 2
    row = next(row for row in listing.table.to_pylist() if row["name"] == "a.mp4")
    assert re.fullmatch(r"3-[0-9a-f]{32}", row["version"])
    assert f"s3://test-bucket/{row['path'].decode()}" == row["uri"]
    assert listing.covers(f"{s3_url}/v", f"{s3_url}/v/gone.mp4")
    assert not listing.covers(f"{s3_url}/v", f"{s3_url}/other/e.mp4")

    assert names(list_archive([f"{s3_url}/v/*.mp4"])) == ["a.mp4", "новое x.mp4"]
    assert names(list_archive([f"{s3_url}/**/d.mp4"])) == ["d.mp4"]
    assert names(list_archive([f"{s3_url}/v/notes.txt".replace("notes.txt", "a.mp4")])) == ["a.mp4"]
    assert refusals(list_archive([f"{s3_url}/list.txt"])) == {
        "notes.txt": None,
        "e.mp4": None,
        "gone.mp4": "ReadFailed",
    }
    with pytest.raises(UsageError, match="no video found"):
        list_archive([f"{s3_url}/nothing"])
    with pytest.raises(UsageError, match="cannot list"):
        list_archive(["s3://no-such-bucket/x"])


def test_rows_cost_little_memory(tmp_path: Path) -> None:
    touch(tmp_path, *(f"camera_{i % 7}/2026-01-{i % 30 + 1:02d}/recording_{i:06d}.mp4" for i in range(2000)))
    listing = list_archive([str(tmp_path)])
    assert len(listing.table) == 2000
    assert listing.table.nbytes / 2000 < 600


def test_unquoting_a_uri_gives_the_bytes() -> None:
    raw = bytes(b for b in range(1, 256) if b != ord("/"))
    assert unquote_to_bytes(file_uri(b"/" + raw).removeprefix("file://")) == b"/" + raw
