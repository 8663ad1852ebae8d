"""Storage: what it promises about atomic and exclusive writes, the same on a folder and on S3."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UsageError
from pipeline.storage.base import check_writable
from pipeline.storage.local import LocalStorage
from pipeline.storage.places import open_storage
from pipeline.storage.s3 import S3Storage


def test_what_is_written_is_read_and_listed(url: str) -> None:
    storage = open_storage(url)
    storage.write_atomic("a/x", b"1")
    storage.write_atomic("a/x", b"22")
    storage.write_atomic("a/deep/y", b"333")
    assert storage.read_bytes("a/x") == b"22"
    assert storage.list("a") == {"x": 2}
    assert storage.exists("a/x")
    assert not storage.exists("a/y")
    storage.delete("a/x")
    storage.delete("a/x")
    assert storage.list("a") == {}
    assert storage.list("never/written") == {}


def test_missing_bytes_are_file_not_found(url: str) -> None:
    storage = open_storage(url)
    with pytest.raises(FileNotFoundError):
        storage.read_bytes("nothing")
    with pytest.raises(FileNotFoundError):
        storage.read_tagged("nothing")


def test_one_of_many_creators_wins(url: str) -> None:
    storage = open_storage(url)
    contents = [f"writer {i}".encode() for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda data: storage.create_exclusive("commits/1", data), contents))
    assert won.count(True) == 1
    assert storage.read_bytes("commits/1") == contents[won.index(True)]


def test_replace_only_what_was_read(url: str) -> None:
    storage = open_storage(url)
    storage.write_atomic("snapshot", b"0")
    _, tag = storage.read_tagged("snapshot")
    newer = storage.replace_if("snapshot", b"1", tag)
    assert newer is not None
    assert storage.replace_if("snapshot", b"2", tag) is None
    assert storage.read_tagged("snapshot") == (b"1", newer)
    assert storage.replace_if("snapshot", b"2", newer) is not None


def test_a_lost_reply_to_a_conditional_write_is_no_lost_race(s3_url: str) -> None:
    """The client repeats a PUT whose reply it never saw, and is told the object exists: it is its own."""
    storage = S3Storage(s3_url)
    assert storage.create_exclusive("c", b"token of this writer")
    assert storage.create_exclusive("c", b"token of this writer")
    assert not storage.create_exclusive("c", b"token of another")


def test_pages_of_a_long_list(s3_url: str) -> None:
    storage = S3Storage(s3_url)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: storage.write_atomic(f"many/{i:05d}", b""), range(1100)))
    assert list(storage.list("many")) == [f"{i:05d}" for i in range(1100)]


def test_parquet_is_read_through_arrow(url: str) -> None:
    storage = open_storage(url)
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": [1, 2]}), buffer)
    storage.write_atomic("t/f.parquet", buffer.getvalue().to_pybytes())
    assert pq.read_table("t/f.parquet", filesystem=storage.arrow())["a"].to_pylist() == [1, 2]
    with pytest.raises(FileNotFoundError):
        pq.read_table("t/missing.parquet", filesystem=storage.arrow())


def test_temporary_files_never_lie_beside_what_readers_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(str(tmp_path))
    seen: list[list[str]] = []
    real_fsync = os.fsync

    def watching_fsync(descriptor: int) -> None:
        seen.append(sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()))
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watching_fsync)
    storage.write_atomic("table/f", b"x")
    before_rename, after_rename = seen
    assert [os.path.dirname(path) for path in before_rename] == ["_state/tmp"]
    assert after_rename == ["table/f"]


def test_files_are_as_readable_as_the_umask_says(tmp_path: Path) -> None:
    LocalStorage(str(tmp_path)).write_atomic("f", b"x")
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_an_output_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UsageError, match="cannot write to"):
        check_writable(open_storage(str(file / "below")))


def test_a_bucket_that_is_not_there_is_said(s3_url: str) -> None:
    with pytest.raises(UsageError, match="cannot write to"):
        check_writable(open_storage("s3://no-such-bucket/index"))


@pytest.mark.parametrize("url", ["gs://bucket/index", "file:///index", "s3://"])
def test_places_we_cannot_write_to_are_refused_by_name(url: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        open_storage(url)
