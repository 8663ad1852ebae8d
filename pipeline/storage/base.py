"""What the index asks of a place for bytes, and which paths below its root are paths at all.

Paths are relative to the root of the storage, with "/" between parts. A reader sees the old bytes, the new bytes or
FileNotFoundError, never a part. Temporary files lie in `_state/tmp`, never in the folder of a table.

    operation          local                              S3
    write_atomic       temp file, fsync, rename           one PUT
    create_exclusive   temp file, fsync, link             one PUT with If-None-Match: *
    replace_if         compare, then write_atomic         one PUT with If-Match
                       (callers hold the flock)
"""

import os
from typing import Protocol

import pyarrow.fs

from pipeline.errors import UsageError

TEMP_FOLDER = "_state/tmp"


class Storage(Protocol):
    """A folder of some store. Missing paths raise FileNotFoundError unless said otherwise.

    Every method refuses a path that leaves the root, with UsageError (`inside`).
    """

    url: str

    def read_bytes(self, path: str) -> bytes: ...
    def read_tagged(self, path: str) -> tuple[bytes, str]:
        """The bytes and a tag that changes with them, for `replace_if`."""

    def write_atomic(self, path: str, data: bytes) -> None: ...
    def create_exclusive(self, path: str, data: bytes) -> bool:
        """True when this call created `path`; False when it was there already."""

    def replace_if(self, path: str, data: bytes, tag: str) -> str | None:
        """The new tag, or None when the bytes at `path` are no longer those of `tag`."""

    def list(self, folder: str) -> dict[str, int]:
        """Files directly in `folder`: name -> size in bytes, sorted. A missing folder is empty."""

    def exists(self, path: str) -> bool: ...
    def delete(self, *paths: str) -> None:
        """Deleting what is missing is no error. When one path leaves the root, nothing is deleted."""

    def age_s(self, path: str) -> float:
        """Seconds since `path` was written, by the store's own clock alone."""

    def arrow(self) -> pyarrow.fs.FileSystem:
        """The same root, for pyarrow to read Parquet from. It checks no path: ask `readable` first."""

    def readable(self, path: str) -> str:
        """`path`, once it is known to be a plain file below the root, or on a store without links to be a plain name.

        Whether the file is there is not asked on a store where that costs a request.
        """


def inside(url: str, path: str) -> str:
    """`path`, if it names a place below a root: parts joined by "/", none of them empty, "." or "..". Else UsageError.

    A backslash is refused too: it separates parts on some systems. "" is the root itself, for `list`.
    """
    parts = path.split("/") if path else []
    if any(part in ("", ".", "..") for part in parts) or "\\" in path or any(ord(c) < 32 for c in path):
        raise UsageError(f"{url}: {path!r} is not a path below it; expected parts joined by /, none of them ..")
    return path


def check_writable(storage: Storage) -> None:
    """Write and delete one temporary file, so that an unusable output is said before any work. UsageError if not."""
    probe = f"{TEMP_FOLDER}/probe-{os.urandom(8).hex()}"
    try:
        storage.write_atomic(probe, b"")
        storage.delete(probe)
    except OSError as error:
        raise UsageError(f"cannot write to {storage.url}: {error}") from error
