"""A local folder as storage. Every write is on the disk (fsync) before it is visible.

Symbolic links below the root are followed only where they stay below it. FIFOs, sockets and devices are refused: an
index that others wrote must not make a job wait, or read and delete elsewhere.
"""

import contextlib
import functools
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs

from pipeline.errors import UsageError
from pipeline.storage.base import TEMP_FOLDER, inside


class LocalStorage:
    """A folder on a disk of this machine, or on a file system that its nodes share."""

    def __init__(self, url: str) -> None:
        self.url = os.path.abspath(url)

    def read_bytes(self, path: str) -> bytes:
        return Path(self._file(path)).read_bytes()

    def read_tagged(self, path: str) -> tuple[bytes, str]:
        data = self.read_bytes(path)
        return data, _content_tag(data)

    def write_atomic(self, path: str, data: bytes) -> None:
        target = self._new_file(path)
        with self._temp_file(data) as temp:
            os.replace(temp, target)
        _fsync_folder(target.parent)

    def create_exclusive(self, path: str, data: bytes) -> bool:
        target = self._new_file(path)
        with self._temp_file(data) as temp:
            try:
                os.link(temp, target)
            except FileExistsError:
                return False
        _fsync_folder(target.parent)
        return True

    def replace_if(self, path: str, data: bytes, tag: str) -> str | None:
        if self.read_tagged(path)[1] != tag:
            return None
        self.write_atomic(path, data)
        return _content_tag(data)

    def list(self, folder: str) -> dict[str, int]:
        try:
            with os.scandir(self._real(folder)) as entries:
                sizes = {e.name: e.stat(follow_symlinks=False).st_size for e in entries if not e.is_dir()}
        except FileNotFoundError:
            return {}
        return dict(sorted(sizes.items()))

    def exists(self, path: str) -> bool:
        return os.path.exists(self._real(path))

    def delete(self, *paths: str) -> None:
        for target in [self._place(path) for path in paths]:  # all are checked before the first is gone
            target.unlink(missing_ok=True)

    def age_s(self, path: str) -> float:
        return time.time() - os.stat(self._file(path)).st_mtime

    def arrow(self) -> pyarrow.fs.FileSystem:
        return pyarrow.fs.SubTreeFileSystem(self.url, pyarrow.fs.LocalFileSystem())

    def readable(self, path: str) -> str:
        self._file(path)
        return path

    def open_lock(self, path: str) -> int:
        """A descriptor of the file at `path`, made if it is missing, for flock."""
        target = self._new_file(path)
        with contextlib.suppress(FileNotFoundError):
            self._file(path)
        return os.open(target, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)

    def _real(self, path: str) -> str:
        """Where `path` leads when links are followed. UsageError when that is not below the root."""
        root, found = os.path.realpath(self.url), os.path.realpath(os.path.join(self.url, inside(self.url, path)))
        if found != root and not found.startswith(root.rstrip("/") + "/"):
            raise UsageError(f"{self.url}: {path!r} is a link that leaves it; expected files and folders of its own")
        return found

    def _place(self, path: str) -> Path:
        """`path` in its real folder; a link at its end is not followed."""
        folder, _, name = inside(self.url, path).rpartition("/")
        return Path(self._real(folder), name)

    def _file(self, path: str) -> str:
        """The plain file that `path` leads to."""
        found = self._real(path)
        mode = os.stat(found).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # reading a folder fails by itself
            raise UsageError(f"{self.url}: {path!r} is a FIFO, socket or device; expected a file")
        return found

    def _new_file(self, path: str) -> Path:
        target = self._place(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    @contextlib.contextmanager
    def _temp_file(self, data: bytes) -> Iterator[str]:
        folder = self._new_file(f"{TEMP_FOLDER}/new").parent
        descriptor, temp = tempfile.mkstemp(dir=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), 0o666 & ~umask())
                os.fsync(file.fileno())
            yield temp
        finally:
            Path(temp).unlink(missing_ok=True)


def _content_tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@functools.cache
def umask() -> int:
    """This process's file mode creation mask."""
    mask = os.umask(0o077)  # the only way to read it is to set it
    os.umask(mask)
    return mask
