"""S3 as storage, and the requests about single objects that listing and reading an archive make.

The only file that imports fsspec or s3fs. Credentials and endpoint (AWS_ENDPOINT_URL) come from the environment, as for
any AWS tool; throttled requests are repeated with growing pauses.
"""

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import fsspec.asyn
import pyarrow.fs
import s3fs
from botocore.exceptions import BotoCoreError, HTTPClientError

from pipeline.errors import JobError, UsageError
from pipeline.storage.base import inside

_DELETE_KEYS = 1000  # S3's limit for one request
_BODY_PAUSES_S = (0.2, 1.0, 5.0)


def is_s3(url: str) -> bool:
    return url.startswith("s3://")


def bucket_and_key(uri: str) -> tuple[str, str]:
    """The parts of s3://bucket/key."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


class S3Storage:
    """A prefix of a bucket. Reads after writes are consistent, conditional writes are the server's."""

    def __init__(self, url: str) -> None:
        self.bucket, prefix = bucket_and_key(url)
        self.prefix = prefix.rstrip("/")
        if not self.bucket:
            raise UsageError(f"{url!r} given; expected s3://bucket/prefix")
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
        head = self._head(path)
        now = parsedate_to_datetime(head["ResponseMetadata"]["HTTPHeaders"]["date"])
        return float((now - head["LastModified"]).total_seconds())

    def readable(self, path: str) -> str:
        return inside(self.url, path)

    def _key(self, path: str) -> str:
        return f"{self.prefix}/{inside(self.url, path)}".lstrip("/")

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
