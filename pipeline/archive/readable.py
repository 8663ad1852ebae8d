"""A listed video's bytes at a path of this machine, wherever they lie, and a refusal where they changed since."""

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from pipeline.archive.remote import RemoteCopy
from pipeline.decoding.decoder import Fill
from pipeline.errors import ChangedWhileRead, ReadFailed
from pipeline.types import Source


@dataclass(frozen=True)
class LocalFile:
    """A video on a disk of this node: all of it is there, and what is read of it is not counted."""

    path: str
    filler: Fill | None = None
    bytes_read: int | None = None


def readable(source: Source) -> AbstractContextManager[LocalFile | RemoteCopy]:
    """The video's bytes at a local path; a file that no longer is what was listed raises ChangedWhileRead."""
    if source.uri.startswith("s3://"):
        return RemoteCopy(source.uri, source.version)
    path = os.fsdecode(source.path)
    try:
        status = os.stat(path)
    except OSError as error:
        raise ReadFailed(f"cannot read it: {error.strerror}") from error
    if f"{status.st_size}-{status.st_mtime_ns}" != source.version:
        raise ChangedWhileRead("its size or modification time is no longer what the listing saw")
    return nullcontext(LocalFile(path))
