"""Whether anybody opens, reads, writes or deletes in a folder, whatever library does it: Linux's own inotify."""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ACCESS, _MODIFY, _ATTRIB, _MOVED, _OPEN, _CREATE, _DELETE = 0x1, 0x2, 0x4, 0xC0, 0x20, 0x100, 0x200
_EVERYTHING = _ACCESS | _MODIFY | _ATTRIB | _MOVED | _OPEN | _CREATE | _DELETE


@contextmanager
def watching(folder: Path) -> Iterator[list[str]]:
    """Fills the list, as the block ends, with the names of files of `folder` ("" is itself) that were touched."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    assert descriptor >= 0
    assert libc.inotify_add_watch(descriptor, os.fsencode(folder), _EVERYTHING) >= 0
    touched: list[str] = []
    try:
        yield touched
        try:
            data = os.read(descriptor, 1 << 20)
        except BlockingIOError:
            data = b""
        while data:
            _, _, _, length = struct.unpack_from("iIII", data)
            touched.append(data[16 : 16 + length].rstrip(b"\0").decode())
            data = data[16 + length :]
    finally:
        os.close(descriptor)
