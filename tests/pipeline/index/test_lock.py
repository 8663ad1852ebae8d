"""One writer per index: flock on a folder, a lease on S3."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.errors import IndexLocked
from pipeline.index.lock import LEASE, Lease, index_lock
from pipeline.storage.places import open_storage
from pipeline.storage.s3 import S3Storage

REPOSITORY = Path(__file__).resolve().parents[3]
_HOLDER = """
import sys, time
from pipeline.index.lock import index_lock
from pipeline.storage.places import open_storage
with index_lock(open_storage(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def hold(url: str) -> subprocess.Popen[str]:
    """Another process that holds the index."""
    holder = subprocess.Popen([sys.executable, "-c", _HOLDER, url], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def silent(_: str) -> None:
    pass


def test_a_live_run_keeps_others_out_and_a_killed_one_does_not(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "index"))
    holder = hold(storage.url)
    with pytest.raises(IndexLocked, match=rf"process {holder.pid} on "), index_lock(storage):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with index_lock(storage) as check:
        check()


def test_the_lock_is_freed_and_leaves_the_index_as_it_was(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    with index_lock(storage):
        pass
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RuntimeError, match="inside"), index_lock(storage):
        raise RuntimeError("inside")
    with index_lock(storage):
        pass
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_lease_is_taken_kept_alive_and_given_back(s3_url: str) -> None:
    storage = S3Storage(s3_url)
    with Lease(storage, silent, lease_s=3, heartbeat_s=0.3) as lease:
        first = json.loads(storage.read_bytes(LEASE))
        time.sleep(1)
        lease.check()
        assert json.loads(storage.read_bytes(LEASE))["nonce"] != first["nonce"], "it beats"
        assert first["pid"] == os.getpid()
    assert not storage.exists(LEASE)


def test_a_live_lease_keeps_others_out(s3_url: str) -> None:
    storage, said = S3Storage(s3_url), list[str]()
    with Lease(storage, silent, lease_s=30, heartbeat_s=0.3) as lease:
        with pytest.raises(IndexLocked, match=rf"process {os.getpid()} on .* alive"):
            Lease(S3Storage(s3_url), said.append, lease_s=30).__enter__()
        lease.check()
    assert len(said) == 1
    assert "waiting up to" in said[0]


def test_a_dead_lease_is_waited_out_and_taken_over(s3_url: str) -> None:
    """The server's clock has whole seconds, so a lease of 2 s is dead after 2 to 3."""
    storage, said = S3Storage(s3_url), list[str]()
    dead = Lease(storage, silent, lease_s=2, heartbeat_s=60)
    dead._acquire()
    started = time.monotonic()
    with Lease(S3Storage(s3_url), said.append, lease_s=2, heartbeat_s=0.3) as lease:
        assert 0.9 < time.monotonic() - started < 10
        lease.check()
        with pytest.raises(IndexLocked, match="lost"):
            dead.check()
    assert "waiting up to" in said[0]


def test_a_holder_that_was_cut_off_notices(s3_url: str) -> None:
    storage = S3Storage(s3_url)
    with Lease(storage, silent, lease_s=30, heartbeat_s=0.2) as lease:
        _, tag = storage.read_tagged(LEASE)
        taker = json.dumps({"pid": 1, "host": "other", "at": "now", "nonce": "x"}).encode()
        while storage.replace_if(LEASE, taker, tag) is None:  # a heartbeat came between
            _, tag = storage.read_tagged(LEASE)
        time.sleep(1)
        with pytest.raises(IndexLocked, match="another run took it over"):
            lease.check()
    assert storage.read_bytes(LEASE) == taker, "a lease that was lost is not deleted"


def test_of_many_that_see_a_dead_lease_one_takes_it(s3_url: str) -> None:
    dead = Lease(S3Storage(s3_url), silent, lease_s=1, heartbeat_s=60)
    dead._acquire()
    time.sleep(2.1)
    rivals = [Lease(S3Storage(s3_url), silent, lease_s=1, heartbeat_s=0.2) for _ in range(4)]
    held, refused = [], 0
    for rival in rivals:
        try:
            held.append(rival.__enter__())
        except IndexLocked:
            refused += 1
    assert (len(held), refused) == (1, 3)
    held[0].__exit__()


def test_index_lock_uses_the_lease_on_s3(s3_url: str) -> None:
    storage = S3Storage(s3_url)
    with index_lock(storage, silent) as check:
        check()
        assert storage.exists(LEASE)
    assert not storage.exists(LEASE)
