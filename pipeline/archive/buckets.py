"""S3: objects below a prefix, and single ones."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from pipeline.archive.found import Found, Progress
from pipeline.errors import ReadFailed, UsageError
from pipeline.storage.s3 import bucket_and_key, head_object, list_objects, version_of_object


def objects(
    bucket: str, prefix: str, wanted: Callable[[str], bool], is_video: Callable[[bytes], bool], progress: Progress
) -> Iterator[Found]:
    """Videos below a prefix. UsageError when not even a first page is given: no such bucket, no permission."""
    items = list_objects(bucket, prefix)
    try:
        first = next(items, None)
    except OSError as error:
        raise UsageError(f"cannot list s3://{bucket}/{prefix}: {error}") from error
    try:
        for item in itertools.chain([first] if first else [], items):
            key: str = item["Key"]
            if key.endswith("/"):
                continue  # what consoles create for an empty folder
            if not is_video(key.rpartition("/")[2].encode()) or not wanted(key[len(prefix) :]):
                progress.ignored += 1
                continue
            yield _object(bucket, key, item["Size"], item["ETag"], item["LastModified"].timestamp())
    except OSError as error:
        progress.complaints.append(f"cannot list s3://{bucket}/{prefix} to the end: {error}")


def named_object(uri: str) -> Found:
    bucket, key = bucket_and_key(uri)
    try:
        head = head_object(bucket, key)
    except OSError as error:
        refusal = (ReadFailed.__name__, f"cannot be reached: {error}")
        return Found(uri, key.encode(), PurePosixPath(key).name, "absent", 0, 0, *refusal)
    return _object(bucket, key, head["ContentLength"], head["ETag"], head["LastModified"].timestamp())


def _object(bucket: str, key: str, size_bytes: int, etag: str, modified_s: float) -> Found:
    version = version_of_object(size_bytes, etag)
    return Found(
        f"s3://{bucket}/{key}", key.encode(), PurePosixPath(key).name, version, size_bytes, int(modified_s * 1e6)
    )
