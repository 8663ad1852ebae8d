"""Videos in S3, read as far as they are needed: a sparse local file that fills as its decoder reads.

The decode child has no network and no credentials. It reads the sparse file by its path; before it reads where nothing
has been fetched yet, it says so to its owner over the pipe, and the owner fetches (`RemoteCopy.fill`). Nothing is
fetched twice: a container that must be read from end to end costs one whole copy and no more.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator

from pipeline.errors import ChangedWhileRead, ReadFailed
from pipeline.storage.s3 import bucket_and_key, head_object, http_status, read_range, version_of_object

BLOCK_BYTES = 128 << 10
WHOLE_BYTES = 32 << 20
"""Objects up to this size are fetched at once: the probe reads all of such a file anyway."""
MAX_AHEAD_BYTES = 8 << 20
_PART_BYTES = 16 << 20


class RemoteCopy:
    """A local file of an object's size, of which those blocks are on the disk that were asked for. `with` deletes it.

    ReadFailed when storage does not give the object; ChangedWhileRead when it is no longer `version`, or changes later.
    """

    def __init__(self, uri: str, version: str | None = None) -> None:
        self.uri, self.bytes_read = uri, 0
        self._bucket, self._key = bucket_and_key(uri)
        with self._said_of_the_video():
            head = head_object(self._bucket, self._key)
        self.size, self._etag = int(head["ContentLength"]), str(head["ETag"])
        if version is not None and version_of_object(self.size, self._etag) != version:
            raise ChangedWhileRead(f"{uri} is no longer what the listing saw")
        self._file = tempfile.NamedTemporaryFile(suffix=os.path.splitext(self._key)[1][:8])  # noqa: SIM115  # closed by close()
        self._file.truncate(self.size)
        self._here = bytearray(-(-self.size // BLOCK_BYTES))  # 1 where a block is on the disk
        self._run = (0, 0)  # blocks read one after the other up to now
        self.is_sparse = self.size > WHOLE_BYTES
        try:
            self.fill(0, self.size if not self.is_sparse else BLOCK_BYTES)
        except BaseException:  # Ctrl-C too leaves no file; raised again
            self.close()
            raise

    @property
    def path(self) -> str:
        return self._file.name

    @property
    def filler(self) -> Callable[[int, int], tuple[int, int]] | None:
        """What a decoder must ask before it reads; None where all of the object is here."""
        return self.fill if self.is_sparse else None

    def __enter__(self) -> "RemoteCopy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def fill(self, start: int, end: int) -> tuple[int, int]:
        """See that bytes [start, end) are there; returns the range around them that is. Reads ahead in a run."""
        if self.size == 0:
            return 0, 0
        first = min(max(start, 0), self.size - 1) // BLOCK_BYTES
        last = max(first, -(-min(end, self.size) // BLOCK_BYTES) - 1)
        goes_on = self._run[0] <= first <= self._run[1]
        self._run = (self._run[0], max(self._run[1], last + 1)) if goes_on else (first, last + 1)
        # Half of what was read in one run: a sparse sample overshoots little, a whole file goes in large requests.
        ahead = min((self._run[1] - self._run[0]) // 2, MAX_AHEAD_BYTES // BLOCK_BYTES)
        wanted = min(last + ahead, len(self._here) - 1)
        at = first
        while at <= wanted:
            if self._here[at]:
                at += 1
                continue
            stop = at
            while stop <= wanted and not self._here[stop]:
                stop += 1
            self._fetch(at, stop)
            at = stop
        self._run = (self._run[0], wanted + 1)
        return first * BLOCK_BYTES, min((wanted + 1) * BLOCK_BYTES, self.size)

    def _fetch(self, first: int, stop: int) -> None:
        start, end = first * BLOCK_BYTES, min(stop * BLOCK_BYTES, self.size)
        for at in range(start, end, _PART_BYTES):
            with self._said_of_the_video():
                data = read_range(self._bucket, self._key, at, min(at + _PART_BYTES, end), self._etag)
            os.pwrite(self._file.fileno(), data, at)
            self.bytes_read += len(data)
        self._here[first:stop] = b"\1" * (stop - first)

    @contextlib.contextmanager
    def _said_of_the_video(self) -> Iterator[None]:
        """Storage errors become this video's transient failure."""
        try:
            yield
        except OSError as error:
            changed = http_status(error) == 412
            raise (ChangedWhileRead if changed else ReadFailed)(f"cannot read {self.uri}: {error}") from error
