"""Where bytes live: a folder or an s3:// prefix, with the few operations whose atomicity the index rests on.

The only file that imports fsspec or s3fs. Paths are relative to the root of the storage, with "/" between parts.

    operation          local                              S3
    write_atomic       temp file, fsync, rename           one PUT
    create_exclusive   temp file, fsync, link             one PUT with If-None-Match: *
    replace_if         compare, then write_atomic         one PUT with If-Match
                       (callers hold the flock)

A reader sees the old bytes, the new bytes or FileNotFoundError, never a part. Temporary files lie in `_state/tmp`,
never in the folder of a table. S3 credentials and endpoint (AWS_ENDPOINT_URL) come from the environment, as for any AWS
tool; throttled requests are repeated with growing pauses.
"""

import contextlib
import functools
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import fsspec.asyn
import pyarrow.fs
import s3fs
from botocore.exceptions import BotoCoreError, HTTPClientError

from pipeline.errors import JobError, UsageError

TEMP_FOLDER = "_state/tmp"
_DELETE_KEYS = 1000  # S3's limit for one request
_BODY_PAUSES_S = (0.2, 1.0, 5.0)


class Storage(Protocol):
    """What the index asks of a place for bytes. Missing paths raise FileNotFoundError unless said otherwise."""

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
        """Deleting what is missing is no error."""

    def arrow(self) -> pyarrow.fs.FileSystem:
        """The same root, for pyarrow to read Parquet from."""


def open_storage(url: str) -> Storage:
    """Storage at a local path or s3://bucket/prefix. Nothing is touched yet."""
    if is_s3(url):
        return S3Storage(url)
    if "://" in url:
        raise UsageError(f"{url!r}: expected a local path or s3://bucket/prefix")
    return LocalStorage(url)


def is_s3(url: str) -> bool:
    return url.startswith("s3://")


def check_writable(storage: Storage) -> None:
    """Write and delete one temporary file, so that an unusable output is said before any work. UsageError if not."""
    probe = f"{TEMP_FOLDER}/probe-{os.urandom(8).hex()}"
    try:
        storage.write_atomic(probe, b"")
        storage.delete(probe)
    except OSError as error:
        raise UsageError(f"cannot write to {storage.url}: {error}") from error


class LocalStorage:
    """A folder. Every write is on the disk (fsync) before it is visible."""

    def __init__(self, url: str) -> None:
        self.root = Path(os.path.abspath(url))
        self.url = str(self.root)

    def read_bytes(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def read_tagged(self, path: str) -> tuple[bytes, str]:
        data = self.read_bytes(path)
        return data, _content_tag(data)

    def write_atomic(self, path: str, data: bytes) -> None:
        target = self._parent_of(path)
        with self._temp_file(data) as temp:
            os.replace(temp, target)
        _fsync_folder(target.parent)

    def create_exclusive(self, path: str, data: bytes) -> bool:
        target = self._parent_of(path)
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
            with os.scandir(self.root / folder) as entries:
                sizes = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        except FileNotFoundError:
            return {}
        return dict(sorted(sizes.items()))

    def exists(self, path: str) -> bool:
        return (self.root / path).exists()

    def delete(self, *paths: str) -> None:
        for path in paths:
            (self.root / path).unlink(missing_ok=True)

    def arrow(self) -> pyarrow.fs.FileSystem:
        return pyarrow.fs.SubTreeFileSystem(self.url, pyarrow.fs.LocalFileSystem())

    def _parent_of(self, path: str) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    @contextlib.contextmanager
    def _temp_file(self, data: bytes) -> Iterator[str]:
        folder = self.root / TEMP_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, temp = tempfile.mkstemp(dir=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), 0o666 & ~_umask())
                os.fsync(file.fileno())
            yield temp
        finally:
            Path(temp).unlink(missing_ok=True)


class S3Storage:
    """A prefix of a bucket. Reads after writes are consistent, conditional writes are the server's."""

    def __init__(self, url: str) -> None:
        self.bucket, _, self.prefix = url.removeprefix("s3://").rstrip("/").partition("/")
        if not self.bucket:
            raise UsageError(f"{url!r}: expected s3://bucket/prefix")
        self.url = f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def read_bytes(self, path: str) -> bytes:
        reply = _request("get_object", Bucket=self.bucket, Key=self._key(path))
        data: bytes = reply["Body"]
        return data

    def read_tagged(self, path: str) -> tuple[bytes, str]:
        reply = _request("get_object", Bucket=self.bucket, Key=self._key(path))
        return reply["Body"], reply["ETag"]

    def write_atomic(self, path: str, data: bytes) -> None:
        self._put(path, data)

    def create_exclusive(self, path: str, data: bytes) -> bool:
        return self._put_if(path, data, IfNoneMatch="*") is not None

    def replace_if(self, path: str, data: bytes, tag: str) -> str | None:
        return self._put_if(path, data, IfMatch=tag)

    def list(self, folder: str) -> dict[str, int]:
        prefix = self._key(folder).rstrip("/") + "/"
        sizes = {item["Key"][len(prefix) :]: item["Size"] for item in list_objects(self.bucket, prefix, delimiter="/")}
        return dict(sorted((name, size) for name, size in sizes.items() if name))

    def exists(self, path: str) -> bool:
        try:
            self._head(path)
        except FileNotFoundError:
            return False
        return True

    def delete(self, *paths: str) -> None:
        keys = [{"Key": self._key(path)} for path in paths]
        for start in range(0, len(keys), _DELETE_KEYS):
            some = {"Objects": keys[start : start + _DELETE_KEYS], "Quiet": True}
            errors = _request("delete_objects", Bucket=self.bucket, Delete=some).get("Errors", [])
            if errors:
                raise OSError(f"cannot delete {errors[0]['Key']} and {len(errors) - 1} others: {errors[0]['Code']}")

    def arrow(self) -> pyarrow.fs.FileSystem:
        handler = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(s3()))
        return pyarrow.fs.SubTreeFileSystem(f"{self.bucket}/{self.prefix}".rstrip("/"), handler)

    def age_s(self, path: str) -> float:
        """Seconds since `path` was written, by the server's clock alone."""
        head = self._head(path)
        now = parsedate_to_datetime(head["ResponseMetadata"]["HTTPHeaders"]["date"])
        return float((now - head["LastModified"]).total_seconds())

    def _key(self, path: str) -> str:
        return f"{self.prefix}/{path}".lstrip("/")

    def _head(self, path: str) -> dict[str, Any]:
        return head_object(self.bucket, self._key(path))

    def _put(self, path: str, data: bytes, **condition: str) -> str:
        tag: str = _request("put_object", Bucket=self.bucket, Key=self._key(path), Body=data, **condition)["ETag"]
        return tag

    def _put_if(self, path: str, data: bytes, **condition: str) -> str | None:
        for _ in range(8):
            try:
                return self._put(path, data, **condition)
            except OSError as error:
                status = http_status(error)
                if status == 409:  # another conditional write is under way: ask again
                    continue
                if status not in (404, 412):
                    raise
            # A repeated request finds its own first try, whose reply was lost. Every conditional write carries a token.
            try:
                found, tag = self.read_tagged(path)
            except FileNotFoundError:
                return None
            return tag if found == data else None
        raise JobError(f"{self.url}/{path}: eight conditional writes in a row met another writer")


def s3() -> s3fs.S3FileSystem:
    """The one S3 client of this process: s3fs keeps it, and starts afresh after a fork."""
    # botocore pauses 1, 2, 4 ... 20 s (with jitter) between tries of a throttled or failed request.
    retries = {"mode": "standard", "max_attempts": 7}
    return s3fs.S3FileSystem(config_kwargs={"retries": retries}, use_listings_cache=False)


def list_objects(bucket: str, prefix: str, delimiter: str = "") -> Iterator[dict[str, Any]]:
    """Objects under `prefix`, a page of 1,000 at a time: dicts with Key, Size, ETag, LastModified."""
    query = {"Bucket": bucket, "Prefix": prefix, "Delimiter": delimiter}
    page = _request("list_objects_v2", **query)
    while True:
        yield from page.get("Contents", [])
        if not page.get("IsTruncated"):
            return
        page = _request("list_objects_v2", **query, ContinuationToken=page["NextContinuationToken"])


def head_object(bucket: str, key: str) -> dict[str, Any]:
    """Size (ContentLength), ETag and LastModified of one object. FileNotFoundError when there is none."""
    return _request("head_object", Bucket=bucket, Key=key)


def version_of_object(size_bytes: int, etag: str) -> str:
    return f"{size_bytes}-{etag.strip(chr(34))}"


def read_range(bucket: str, key: str, start: int, end: int, etag: str) -> bytes:
    """Bytes [start, end) of an object that still has this etag; OSError with status 412 when it has another."""
    reply = _request("get_object", Bucket=bucket, Key=key, IfMatch=etag, Range=f"bytes={start}-{end - 1}")
    data: bytes = reply["Body"]
    return data


def _request(method: str, **arguments: Any) -> dict[str, Any]:
    """One S3 request with retries, a body read whole. OSError; FileNotFoundError for 404, PermissionError for 403."""

    async def request() -> dict[str, Any]:
        reply: dict[str, Any] = await s3()._call_s3(method, **arguments)
        if method == "get_object":
            reply["Body"] = await reply["Body"].read()
        return reply

    for pause_s in (*_BODY_PAUSES_S, None):
        try:
            reply: dict[str, Any] = fsspec.asyn.sync(s3().loop, request)
            return reply
        except (aiohttp.ClientPayloadError, HTTPClientError) as error:  # the connection broke: ask for all of it again
            if pause_s is None:
                raise OSError(f"{method} of s3://{arguments['Bucket']}/{arguments.get('Key', '')}: {error}") from error
            time.sleep(pause_s)
        except BotoCoreError as error:  # no credentials, no endpoint
            raise OSError(f"{method} of s3://{arguments['Bucket']}: {error}") from error
    raise AssertionError("unreachable")


def http_status(error: OSError) -> int | None:
    """The status of the S3 reply that became this error, if it was one."""
    response = getattr(error.__cause__, "response", None) or {}
    status: int | None = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status


def _content_tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@functools.cache
def _umask() -> int:
    mask = os.umask(0o077)  # the only way to read it is to set it
    os.umask(mask)
    return mask
