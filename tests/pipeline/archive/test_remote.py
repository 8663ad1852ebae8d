"""Videos in S3 are read as far as they are needed, and what comes out is what the same file gives from a disk."""

import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pytest

from pipeline.archive.listing import list_archive
from pipeline.archive.remote import BLOCK_BYTES, WHOLE_BYTES, RemoteCopy
from pipeline.decoding.decoder import Decoder
from pipeline.decoding.ffmpeg import probe
from pipeline.decoding.ffmpeg.video import Video
from pipeline.decoding.sampling import parse_sampling, plan_clips
from pipeline.errors import ChangedWhileRead, ReadFailed
from pipeline.storage.s3 import S3Storage
from pipeline.types import Bounds, Decoded, Probe, ResizeRecipe
from tests.fault_proxy import FaultProxy
from tests.long_videos import render_piece, repeat
from tests.s3 import BUCKET
from tests.videos import OPEN, needs_videos, open_video

RECIPE = ResizeRecipe(36, 64)
KINDS = {
    "moov at the end.mp4": {},
    "moov in front.mp4": {"movflags": "faststart"},
    "fragmented.mp4": {"movflags": "frag_keyframe+empty_moov"},
    "matroska.mkv": {},
    "stream.ts": {},
    "flash.flv": {},
}

# Without a table of all packets the probe reads the first 500, which of two minutes is a lot and of an hour is not.
MOST_OF_ALL = {"moov at the end.mp4": 0.4, "moov in front.mp4": 0.4, "matroska.mkv": 0.7, "stream.ts": 0.7}
"""Share of the file that may be read; others are read from end to end, by their nature."""


@pytest.fixture(scope="module")
def long_videos(tmp_path_factory: pytest.TempPathFactory, s3_proxy: FaultProxy) -> Iterator[dict[str, Path]]:
    """Files of about 40 MB, two minutes each: more than is fetched whole. They lie in S3 too."""
    folder = tmp_path_factory.mktemp("long")
    piece = render_piece(folder / "piece.mp4", 4, 30, (640, 360), 2_600_000, 1)
    made = {name: repeat(piece, folder / name, 30, options) for name, options in KINDS.items()}
    client = boto3.client("s3")
    for name, path in made.items():
        assert path.stat().st_size > WHOLE_BYTES, path.stat().st_size
        client.upload_file(str(path), BUCKET, f"long/{name}")
    yield made
    for name in made:
        client.delete_object(Bucket=BUCKET, Key=f"long/{name}")


def look(decoder: Decoder, file: RemoteCopy | Path, sampling: str) -> tuple[Probe, list[Decoded]]:
    path, filler = (str(file), None) if isinstance(file, Path) else (file.path, file.filler)
    probe = decoder.probe(path, parse_sampling(sampling), filler)
    plans = plan_clips(probe, parse_sampling(sampling))
    parts = [plans[i : i + 8] for i in range(0, len(plans), 8)]
    return probe, [decoder.decode(path, part, RECIPE, None, fill=filler) for part in parts]


def assert_alike(left: list[Decoded], right: list[Decoded]) -> None:
    for one, other in zip(left, right, strict=True):
        assert (one.decoder, one.coverage, one.bad_packets) == (other.decoder, other.coverage, other.bad_packets)
        for a, b in zip(one.clips, other.clips, strict=True):
            assert (a.pts_s, a.start_s, a.end_s, a.thumbnails) == (b.pts_s, b.start_s, b.end_s, b.thumbnails)
            np.testing.assert_array_equal(a.frames, b.frames)


@pytest.mark.parametrize("name", KINDS)
def test_a_sparse_sample_reads_little_and_gives_the_same(name: str, long_videos: dict[str, Path]) -> None:
    path = long_videos[name]
    with Decoder() as decoder, RemoteCopy(f"s3://{BUCKET}/long/{name}") as copy:
        local, remote = look(decoder, path, "every=30s"), look(decoder, copy, "every=30s")
        read = copy.bytes_read
    assert remote[0] == local[0]
    assert_alike(remote[1], local[1])
    assert read <= path.stat().st_size
    if name in MOST_OF_ALL:
        assert read < MOST_OF_ALL[name] * path.stat().st_size


@pytest.mark.parametrize("name", ["moov at the end.mp4", "moov in front.mp4"])
def test_uniform_reads_times_from_the_header(name: str, long_videos: dict[str, Path]) -> None:
    path = long_videos[name]
    with Decoder() as decoder, RemoteCopy(f"s3://{BUCKET}/long/{name}") as copy:
        local, remote = look(decoder, path, "uniform=6"), look(decoder, copy, "uniform=6")
        read = copy.bytes_read
    assert remote[0] == local[0]
    assert_alike(remote[1], local[1])
    n_frames, step_s = 30 * 120, 1 / 30
    wanted = [int(i) * step_s for i in np.linspace(0, n_frames - 1, 6)]
    np.testing.assert_allclose(local[0].target_times_s, wanted, atol=1e-4)
    assert read < 0.3 * path.stat().st_size


def test_whatever_storage_does_the_video_comes_out_the_same(long_videos: dict[str, Path], s3_proxy: FaultProxy) -> None:
    name = "moov at the end.mp4"
    with Decoder() as decoder, s3_proxy.breaking("cut_body", "slow_down", "lost_reply", "slow", on="GET"):
        with RemoteCopy(f"s3://{BUCKET}/long/{name}") as copy:
            remote = look(decoder, copy, "every=30s")
        assert_alike(remote[1], look(decoder, long_videos[name], "every=30s")[1])


def test_a_video_that_changes_while_it_is_read_is_said(s3_url: str, long_videos: dict[str, Path]) -> None:
    storage, data = S3Storage(s3_url), long_videos["matroska.mkv"].read_bytes()
    storage.write_atomic("v.mkv", data)
    with Decoder() as decoder, RemoteCopy(f"{s3_url}/v.mkv") as copy:
        probe = decoder.probe(copy.path, parse_sampling("every=30s"), copy.filler)
        storage.write_atomic("v.mkv", data[:-1] + b"?")
        plans = plan_clips(probe, parse_sampling("every=30s"))
        with pytest.raises(ChangedWhileRead):
            decoder.decode(copy.path, plans, RECIPE, None, fill=copy.filler)
        healthy = decoder.probe(str(long_videos["matroska.mkv"]), parse_sampling("every=30s"))
        assert healthy == probe, "the next video is served by a fresh child"


def test_a_small_object_is_fetched_at_once_and_a_change_is_noticed(s3_url: str) -> None:
    storage, data = S3Storage(s3_url), os.urandom(1000)
    storage.write_atomic("v/clip.mp4", data)
    uri = f"{s3_url}/v/clip.mp4"
    listed = list_archive([f"{s3_url}/v"]).table.to_pylist()[0]
    assert listed["uri"] == uri
    with RemoteCopy(uri, listed["version"]) as copy:
        assert Path(copy.path).read_bytes() == data
        assert copy.path.endswith(".mp4")
        assert (copy.filler, copy.bytes_read) == (None, 1000)
    assert not Path(copy.path).exists()
    storage.write_atomic("v/clip.mp4", data[:-1] + b"?")
    with pytest.raises(ChangedWhileRead):
        RemoteCopy(uri, listed["version"])
    with pytest.raises(ReadFailed):
        RemoteCopy(uri + ".gone")


def test_nothing_is_fetched_twice(long_videos: dict[str, Path], s3_proxy: FaultProxy) -> None:
    path = long_videos["matroska.mkv"]
    size = path.stat().st_size
    rng = np.random.default_rng(1)
    with RemoteCopy(f"s3://{BUCKET}/long/matroska.mkv") as copy, path.open("rb") as whole:
        for at in rng.integers(0, size, 20):
            start, end = copy.fill(int(at), int(at) + 1000)
            assert start <= at
            assert end >= min(at + 1000, size)
            whole.seek(start)
            with open(copy.path, "rb") as file:
                file.seek(start)
                assert file.read(end - start) == whole.read(end - start)
        requests, read = s3_proxy.n_requests, copy.bytes_read
        copy.fill(int(at), int(at) + 1)
        assert (s3_proxy.n_requests, copy.bytes_read) == (requests, read)
        copy.fill(0, size)
        assert copy.bytes_read == size
        copy.fill(-5, 10 * size)
        assert copy.bytes_read == size
    assert size > BLOCK_BYTES


@needs_videos
def test_the_header_counts_as_decoding_does() -> None:
    """Over the healthy samples whose header lists all frames: what a large file's `uniform` is taken from."""
    n_compared = 0
    for name in OPEN:
        video = Video(open_video(name), Bounds(), lambda: None)
        if video.indexed():
            n_compared += 1
            origin = video.origin()
            assert probe._times_by_header(video, origin) == probe.count_frames(video, origin), name
    assert n_compared == 14
