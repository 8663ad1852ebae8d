"""A video that an index names, opened again: its bytes as a local file, if it is still what was indexed."""

import contextlib
import os
from collections.abc import Callable, Iterator

from pipeline.archive.folders import path_of
from pipeline.archive.remote import RemoteCopy
from pipeline.errors import ChangedWhileRead, ReadFailed
from pipeline.storage.s3 import is_s3

Fill = Callable[[int, int], tuple[int, int]]


@contextlib.contextmanager
def as_indexed(uri: str, version: str) -> Iterator[tuple[str, Fill | None]]:
    """A local path of the video, and what fills it where it is in S3. Raises ReadFailed or ChangedWhileRead."""
    if is_s3(uri):
        with RemoteCopy(uri, version) as copy:
            yield copy.path, copy.filler
        return
    path = os.fsdecode(path_of(uri))
    try:
        found = os.stat(path)
    except OSError as error:
        raise ReadFailed(f"it cannot be reached: {error.strerror}") from error
    if version != f"{found.st_size}-{found.st_mtime_ns}":
        raise ChangedWhileRead("it is not the file that was indexed; index it again first")
    yield os.path.realpath(path), None
