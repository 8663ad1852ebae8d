"""One writer per index.

Locally flock, which the kernel frees when the process dies, however it dies. On S3 a lease: an object that the holder
rewrites every 15 s and that anyone may take over once it is 60 s old by the server's clock. A rerun after a crash
therefore waits a lease out, and says so. A holder that was cut off for longer notices at its next heartbeat; what it
might still write is fenced by commits.py (numbers taken once, the snapshot replaced only if unchanged).
"""

import contextlib
import fcntl
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from pipeline.errors import IndexLocked, UsageError
from pipeline.storage.base import Storage
from pipeline.storage.local import LocalStorage

LOCK = "_state/lock"
HOLDER = "_state/lock.json"
LEASE = "_state/lease.json"
LEASE_S = 60.0
HEARTBEAT_S = 15.0
_POLL_S = 2.0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def index_lock(storage: Storage, say: Callable[[str], None] = _say) -> Iterator[Callable[[], None]]:
    """Hold the index for writing. IndexLocked (exit 5) names who holds it.

    Yields a check to call before each commit: it raises IndexLocked when the lease was lost meanwhile.
    """
    if isinstance(storage, LocalStorage):
        with _flock(storage):
            yield lambda: None
    else:
        with Lease(storage, say) as lease:
            yield lease.check


@contextlib.contextmanager
def _flock(storage: LocalStorage) -> Iterator[None]:
    try:
        descriptor = storage.open_lock(LOCK)
    except OSError as error:
        raise UsageError(f"cannot open the lock {storage.url}/{LOCK}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise IndexLocked(f"{storage.url} is locked by {_holder_of(storage, HOLDER)}") from None
        storage.write_atomic(HOLDER, _holder())
        try:
            yield
        finally:
            storage.delete(HOLDER)  # a crash leaves it behind, which means nothing: the lock is the kernel's
    finally:
        os.close(descriptor)


class Lease:
    """The S3 lease, kept alive by a thread for as long as the `with` block runs."""

    def __init__(
        self,
        storage: Storage,
        say: Callable[[str], None] = _say,
        lease_s: float = LEASE_S,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._storage = storage
        self._say = say
        self._lease_s = lease_s
        self._heartbeat_s = heartbeat_s
        self._tag = ""
        self._renewed_s = 0.0
        self._lost: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="index-lease", daemon=True)

    def __enter__(self) -> "Lease":
        self._acquire()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._lost is None and time.monotonic() - self._renewed_s < self._lease_s:
            self._storage.delete(LEASE)

    def check(self) -> None:
        """IndexLocked when the lease is no longer ours, or could not be renewed for as long as it lasts."""
        if self._lost is None and time.monotonic() - self._renewed_s > self._lease_s:
            self._lost = f"it was not renewed for {self._lease_s:.0f} s"
        if self._lost is not None:
            raise IndexLocked(f"the lease on {self._storage.url} was lost: {self._lost}")

    def _acquire(self) -> None:
        first_tag: str | None = None
        while True:
            self._renewed_s = time.monotonic()
            data = _holder()
            if self._storage.create_exclusive(LEASE, data):
                found, tag = self._storage.read_tagged(LEASE)
                if found == data:
                    self._tag = tag
                    return
                continue
            try:
                _, tag = self._storage.read_tagged(LEASE)
                age_s = self._storage.age_s(LEASE)
            except FileNotFoundError:
                continue  # released between the two requests
            if first_tag is not None and tag != first_tag:
                raise IndexLocked(
                    f"{self._storage.url} is leased by {_holder_of(self._storage, LEASE)}, which is alive"
                )
            if age_s > self._lease_s:
                taken = self._storage.replace_if(LEASE, data, tag)
                if taken is not None:
                    self._tag = taken
                    return
                continue
            if first_tag is None:
                holder = _holder_of(self._storage, LEASE)
                self._say(
                    f"{self._storage.url} is leased by {holder}; "
                    f"waiting up to {self._lease_s - age_s:.0f} s to see whether it is alive"
                )
                first_tag = tag
            time.sleep(min(_POLL_S, self._lease_s / 10))

    def _beat(self) -> None:
        while not self._stop.wait(self._heartbeat_s):
            sent_s = time.monotonic()
            try:
                tag = self._storage.replace_if(LEASE, _holder(), self._tag)
            except OSError as error:  # storage away: try again until the lease runs out
                self._say(f"cannot renew the lease on {self._storage.url}: {error}")
                continue
            if tag is None:
                self._lost = "another run took it over"
                return
            self._tag, self._renewed_s = tag, sent_s


def _holder() -> bytes:
    """Who holds it. The nonce makes each write of the same holder distinct."""
    return json.dumps(
        {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "nonce": secrets.token_hex(8),
        }
    ).encode()


def _holder_of(storage: Storage, path: str) -> str:
    try:
        holder = json.loads(storage.read_bytes(path))
        found = f"process {holder['pid']} on {holder['host']} (seen {holder['at']})"
    except (OSError, ValueError, KeyError, TypeError, RecursionError, UsageError):
        return "another run"
    return found if found.isprintable() and len(found) < 300 else "another run"
