"""Storage that dies at a chosen operation.

Operations are atomic: killed after one and killed before the next leave the same storage, so killing before each is
every point there is.
"""

import os
import signal
from collections.abc import Callable

from pipeline.storage.local import LocalStorage
from pipeline.storage.s3 import S3Storage


class Killed(BaseException):
    """The process is gone; nothing may catch this."""


class _Tap:
    """Calls `at_point(name)` before each operation that changes storage."""

    at_point: Callable[[str], None]

    def write_atomic(self, path: str, data: bytes) -> None:
        self.at_point(f"write {path}")
        super().write_atomic(path, data)  # type: ignore[misc]  # of the storage class mixed in

    def create_exclusive(self, path: str, data: bytes) -> bool:
        self.at_point(f"create {path}")
        return super().create_exclusive(path, data)  # type: ignore[misc, no-any-return]  # of the storage class mixed in

    def replace_if(self, path: str, data: bytes, tag: str) -> str | None:
        self.at_point(f"replace {path}")
        return super().replace_if(path, data, tag)  # type: ignore[misc, no-any-return]  # of the storage class mixed in

    def delete(self, *paths: str) -> None:
        for path in paths:
            self.at_point(f"delete {path}")
            super().delete(path)  # type: ignore[misc]  # of the storage class mixed in


class TappedLocal(_Tap, LocalStorage):
    pass


class TappedS3(_Tap, S3Storage):
    pass


def tapped(url: str, at_point: Callable[[str], None]) -> TappedLocal | TappedS3:
    storage = TappedS3(url) if url.startswith("s3://") else TappedLocal(url)
    storage.at_point = at_point
    return storage


def recorder(points: list[str]) -> Callable[[str], None]:
    return points.append


def killer(at: int, kill: Callable[[], None]) -> Callable[[str], None]:
    """Calls `kill` at the point number `at`, counted from 0."""
    passed = [0]

    def at_point(_: str) -> None:
        passed[0] += 1
        if passed[0] == at + 1:
            kill()

    return at_point


def raise_killed() -> None:
    raise Killed


def sigkill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
