"""Files as the decode child hands them to FFmpeg where a path will not do.

`RangedFile` is a sparse file whose owner fetches what is about to be read. `BlindFile` gives zeros from some moment on,
to a demuxer that has read its header and knows every packet's time and place from there.
"""

import io
import os
from collections.abc import Callable
from typing import Protocol

Need = Callable[[int, int], tuple[int, int]]
"""See that bytes [start, end) are in the file; returns the range around them that is."""


class File(Protocol):
    """What PyAV asks of a file."""

    def read(self, n: int) -> bytes: ...
    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int: ...
    def tell(self) -> int: ...


class RangedFile:
    """A local sparse file, read where `need` has seen to it that bytes are there."""

    def __init__(self, path: str, need: Need) -> None:
        self._need = need
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._size, self._at = os.fstat(self._fd).st_size, 0
        self._here = (0, 0)  # the range last seen to

    def read(self, n: int) -> bytes:
        end = min(self._at + n, self._size)
        if end <= self._at:
            return b""
        if not (self._here[0] <= self._at and end <= self._here[1]):
            self._here = self._need(self._at, end)
        data = os.pread(self._fd, end - self._at, self._at)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


class BlindFile:
    """Another file until `blind`, then zeros of the same length: nothing is read for what nobody looks at."""

    def __init__(self, file: File) -> None:
        self._file, self._zeros = file, b""
        self._size = file.seek(0, io.SEEK_END)
        file.seek(0)
        self.blind = False

    def read(self, n: int) -> bytes:
        if not self.blind:
            return self._file.read(n)
        at = self._file.tell()
        n = max(0, min(n, self._size - at))
        if len(self._zeros) < n:
            self._zeros = bytes(n)
        self._file.seek(at + n)
        return self._zeros if n == len(self._zeros) else self._zeros[:n]

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()
