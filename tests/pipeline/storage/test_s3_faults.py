"""S3 that throttles, loses replies and cuts bodies: storage and commits come out as if nothing had been."""

import os
from pathlib import Path

import pytest

from pipeline.archive.listing import list_archive
from pipeline.archive.remote import RemoteCopy
from pipeline.index.commits import commit, roll_forward
from pipeline.index.drops import drop_everywhere
from pipeline.index.lock import index_lock
from pipeline.index.snapshot import Index
from pipeline.index.staging import encode_item, stage
from pipeline.storage.s3 import S3Storage
from tests.fault_proxy import FaultProxy
from tests.pipeline.archive_rows import ENCODER, id_of, item_rows, video_rows
from tests.pipeline.index.test_commits import tables_of
from tests.s3 import BUCKET, SECRET, environment


def test_throttling_is_waited_out(s3_url: str, s3_proxy: FaultProxy) -> None:
    storage = S3Storage(s3_url)
    with s3_proxy.breaking("slow_down", "slow_down", on="PUT"):
        storage.write_atomic("a", b"1")
    with s3_proxy.breaking("slow_down", "slow_down", on="GET"):
        assert storage.read_bytes("a") == b"1"
    with s3_proxy.breaking("slow_down", on="GET"):
        assert storage.list("") == {"a": 1}


@pytest.mark.parametrize("fault", ["slow_down", "lost_reply", "slow"])
def test_a_conditional_write_happens_once_and_is_known_to_have_happened(
    fault: str, s3_url: str, s3_proxy: FaultProxy
) -> None:
    storage = S3Storage(s3_url)
    with s3_proxy.breaking(fault, on="PUT"):
        assert storage.create_exclusive("commit", b"token a")
    _, tag = storage.read_tagged("commit")
    with s3_proxy.breaking(fault, on="PUT"):
        newer = storage.replace_if("commit", b"token b", tag)
    assert newer is not None
    assert storage.read_tagged("commit") == (b"token b", newer)
    with s3_proxy.breaking(fault, on="PUT"):
        assert not storage.create_exclusive("commit", b"token c")
    with s3_proxy.breaking(fault, on="PUT"):
        assert storage.replace_if("commit", b"token d", tag) is None
    assert storage.read_bytes("commit") == b"token b"


@pytest.mark.parametrize("fault", ["cut_body", "lost_reply", "slow"])
def test_what_is_read_is_whole(fault: str, s3_url: str, s3_proxy: FaultProxy) -> None:
    storage, data = S3Storage(s3_url), os.urandom(300_000)
    storage.write_atomic("clip.mp4", data)
    with s3_proxy.breaking(fault, on="GET"):
        assert storage.read_bytes("clip.mp4") == data
    with s3_proxy.breaking(fault, on="GET"), RemoteCopy(f"{s3_url}/clip.mp4") as copy:
        assert Path(copy.path).read_bytes() == data


def test_a_listing_under_throttling_is_complete(s3_url: str, s3_proxy: FaultProxy) -> None:
    storage = S3Storage(s3_url)
    for n in range(5):
        storage.write_atomic(f"{n}.mp4", b"x")
    with s3_proxy.breaking("slow_down", "lost_reply", "cut_body", on="list-type"):
        listing = list_archive([s3_url])
    assert len(listing.table) == 5
    assert listing.roots[0].is_complete


def test_commits_under_faults_give_the_same_tables(s3_url: str, s3_proxy: FaultProxy) -> None:
    def write(url: str) -> Index:
        index = Index.create(url, ENCODER)
        with index_lock(index.storage):
            roll_forward(index)
            for n in range(2):
                stage(index.storage, f"item-{n}", encode_item(item_rows(n)))
            commit(index, ["item-0", "item-1"], video_rows(0, 1))
            stage(index.storage, "again", encode_item(item_rows(1, version="2")))
            commit(index, ["again"], video_rows(1, version="2"), drops=drop_everywhere([id_of(1)]))
        return index

    undisturbed = tables_of(write(f"{s3_url}/undisturbed"))
    every_so_often = ["lost_reply", "slow_down", "cut_body"] * 4
    with s3_proxy.breaking(*every_so_often, on="_state"):
        disturbed = write(f"{s3_url}/disturbed")
    assert tables_of(disturbed) == undisturbed


@pytest.mark.parametrize("fault", ["slow_down", "lost_reply", "cut_body"])
def test_tables_are_read_whole(fault: str, s3_url: str, s3_proxy: FaultProxy) -> None:
    index = Index.create(s3_url, ENCODER)
    stage(index.storage, "item-0", encode_item(item_rows(0)))
    commit(index, ["item-0"], video_rows(0))
    calm = tables_of(index)
    with s3_proxy.breaking(fault, fault, on="/clips/"):
        assert tables_of(index) == calm


def test_credentials_are_written_nowhere(s3_url: str) -> None:
    index = Index.create(s3_url, ENCODER)
    with index_lock(index.storage):
        stage(index.storage, "item-0", encode_item(item_rows(0)))
        commit(index, ["item-0"], video_rows(0))
        client = S3Storage(f"s3://{BUCKET}")
        prefix = s3_url.removeprefix(f"s3://{BUCKET}/")
        folders = ["_state", "_state/commits", "_state/staging", *(f"{t}" for t in index.snapshot().files)]
        blobs = [client.read_bytes(f"{prefix}/{f}/{name}") for f in folders for name in client.list(f"{prefix}/{f}")]
    assert len(blobs) > 8
    for secret in (SECRET, environment(0)["AWS_ACCESS_KEY_ID"]):
        assert not [blob for blob in blobs if secret.encode() in blob]
