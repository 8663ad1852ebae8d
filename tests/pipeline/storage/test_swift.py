"""The same storage on another S3: OpenStack Swift's s3api, which (other than moto) checks signatures.

What Swift 2.38 cannot do is said here too: it refuses If-Match on a PUT (501), so an index, which replaces its snapshot
that way, cannot lie there. Archives can.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.archive.remote import WHOLE_BYTES
from tests.swift import BUCKET, SECRET, swift_bin, swift_server

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(
        swift_bin() is None, reason="SIGNATURES ARE NOT CHECKED: SWIFT_BIN names no Swift; make nightly installs one"
    ),
]
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    binaries = swift_bin()
    assert binaries is not None
    with swift_server(binaries, tmp_path_factory.mktemp("swift")) as variables:
        yield variables


def in_fresh_process(code: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """An S3 client is made once a process: other credentials need another process."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True
    )


def test_storage_and_listing(swift: dict[str, str]) -> None:
    code = f"""
from pipeline.archive.listing import list_archive
from pipeline.storage.s3 import S3Storage
storage = S3Storage("s3://{BUCKET}/a")
storage.write_atomic("x y+z.mp4", b"1")
storage.write_atomic("é.mp4", b"22")
assert storage.read_bytes("x y+z.mp4") == b"1"
assert storage.list("") == {{"x y+z.mp4": 1, "é.mp4": 2}}, storage.list("")
assert storage.create_exclusive("once", b"a") and not storage.create_exclusive("once", b"b")
assert storage.read_bytes("once") == b"a"
listing = list_archive(["s3://{BUCKET}/a"])
assert [r["size_bytes"] for r in listing.table.to_pylist()] == [1, 2]
storage.delete("x y+z.mp4", "é.mp4", "once", "never there")
assert storage.list("") == {{}}
"""
    done = in_fresh_process(code, swift)
    assert done.returncode == 0, done.stderr


def test_a_video_is_read_by_ranges(swift: dict[str, str], tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * (WHOLE_BYTES // (1 << 20) + 1)
    (tmp_path / "data").write_bytes(data)
    code = f"""
from pipeline.archive.remote import RemoteCopy
from pipeline.storage.s3 import S3Storage
data = open({str(tmp_path / "data")!r}, "rb").read()
S3Storage("s3://{BUCKET}").write_atomic("big.mp4", data)
with RemoteCopy("s3://{BUCKET}/big.mp4") as copy:
    start, end = copy.fill(10_000_000, 10_000_100)
    assert open(copy.path, "rb").read()[start:end] == data[start:end]
    assert copy.bytes_read < 1_000_000
"""
    done = in_fresh_process(code, swift)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("wrong", [{"AWS_SECRET_ACCESS_KEY": "not it"}, {"AWS_ACCESS_KEY_ID": "test:nobody"}])
def test_a_wrong_signature_is_refused_and_said(swift: dict[str, str], wrong: dict[str, str], tmp_path: Path) -> None:
    code = f'from pipeline.storage.s3 import S3Storage; S3Storage("s3://{BUCKET}").read_bytes("x")'
    done = in_fresh_process(code, swift | wrong)
    assert "PermissionError" in done.stderr
    job = [
        sys.executable,
        "-m",
        "jobs.index",
        f"s3://{BUCKET}/a",
        "--output",
        f"s3://{BUCKET}/index",
        "--model",
        "builtin",
    ]
    ended = subprocess.run(job, cwd=ROOT, env={**os.environ, **swift, **wrong}, capture_output=True, text=True)
    assert ended.returncode in (1, 2), ended.stderr
    assert "Traceback" not in ended.stderr
    assert len([line for line in ended.stderr.splitlines() if line.startswith("error: ")]) == 1, ended.stderr
    assert SECRET not in ended.stderr + ended.stdout


def test_an_index_cannot_lie_there_and_that_is_said(swift: dict[str, str]) -> None:
    code = f"""
from pipeline.storage.s3 import S3Storage
storage = S3Storage("s3://{BUCKET}/c")
storage.write_atomic("snapshot", b"1")
_, tag = storage.read_tagged("snapshot")
storage.replace_if("snapshot", b"2", tag)
"""
    done = in_fresh_process(code, swift)
    assert done.returncode != 0
    assert "NotImplemented" in done.stderr or "not implemented" in done.stderr
