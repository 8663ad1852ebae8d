"""From a URL to the store that has it. The one place that decides by scheme."""

from pathlib import Path

from pipeline.errors import UsageError
from pipeline.storage.base import Storage
from pipeline.storage.local import LocalStorage
from pipeline.storage.s3 import S3Storage, is_s3


def open_storage(url: str) -> Storage:
    """Storage at a local path or s3://bucket/prefix. Nothing is touched yet."""
    if is_s3(url):
        return S3Storage(url)
    if "://" in url:
        raise UsageError(f"{url!r} given; expected a local path or s3://bucket/prefix")
    return LocalStorage(url)


def read_named(location: str) -> bytes:
    """All bytes of one file that the user named: a local path, links followed, or s3://bucket/key."""
    if is_s3(location):
        folder, _, name = location.rpartition("/")
        return open_storage(folder).read_bytes(name)
    return Path(location).read_bytes()
