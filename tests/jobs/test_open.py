"""The main job on real footage, checked against a full sequential decode of every file by PyAV."""

import io
from fractions import Fraction
from pathlib import Path
from urllib.parse import unquote

import av
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.index.tables import TABLES
from tests.jobs.conftest import QUESTION, index_job, job
from tests.jobs.tables import records
from tests.videos import OPEN, VIDEOS, needs_videos

pytestmark = needs_videos


@pytest.fixture(scope="module")
def open_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("open") / "index"
    ended = index_job([VIDEOS / "open"], output, "--question", QUESTION, "--max-new-tokens", "8")
    assert ended.code == 0, ended.err
    return output


def sequential(path: str) -> tuple[list[tuple[float, av.VideoFrame]], Fraction]:
    """Every frame of FFmpeg's best video stream, errors passed over packet by packet, times from the first frame; and
    the stream's pixel aspect.
    """
    frames = []
    with av.open(path, metadata_errors="ignore") as container:
        stream = container.streams.best("video")
        for packet in container.demux(stream):
            try:
                frames += packet.decode()
            except av.error.FFmpegError:
                continue
        ticks = [frame.pts if frame.pts is not None else frame.dts for frame in frames]
        base = Fraction(stream.time_base)
        aspect = Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)
    return [(float((t - ticks[0]) * base), frame) for t, frame in zip(ticks, frames, strict=True)], aspect


def test_every_video_is_indexed_and_described(open_index: Path) -> None:
    videos = records(open_index, "videos").values()
    assert sorted(v["name"] for v in videos) == OPEN
    assert {v["status"] for v in videos} == {"indexed"}
    clips = records(open_index, "clips")
    for table in ("segments", "frames", "captions"):
        assert {r["clip_id"] for r in records(open_index, table).values()} == {key[0] for key in clips}, table
    answers = records(open_index, "answers").values()
    assert sorted(a["video_id"] for a in answers) == sorted(v["video_id"] for v in videos)
    assert job("verify", "--index", str(open_index)).code == 0


@pytest.mark.parametrize("name", OPEN)
def test_times_and_pictures_are_those_of_a_sequential_decode(name: str, open_index: Path) -> None:
    (video,) = (v for v in records(open_index, "videos").values() if v["name"] == name)
    truth, stream_aspect = sequential(unquote(video["uri"].removeprefix("file://")))
    times = [t for t, _ in truth]
    got = sorted(f["pts_s"] for f in records(open_index, "frames").values() if f["video_id"] == video["video_id"])
    last_at = {}
    for second in range(int(video["duration_s"]) + 1):
        if second < video["duration_s"]:
            on_screen = [t for t in times if t <= second]
            last_at[max(on_screen, default=times[0])] = second
    assert got == pytest.approx(sorted(last_at), abs=1e-9)

    for segment in records(open_index, "segments").values():
        if segment["video_id"] != video["video_id"]:
            continue
        frame = truth[int(np.argmin([abs(t - segment["best_frame_s"]) for t in times]))][1]
        upright = np.rot90(frame.to_ndarray(format="rgb24"), k=-video["rotation"] // 90)
        thumbnail = Image.open(io.BytesIO(segment["thumbnail"])).convert("RGB")
        height, width = upright.shape[:2]
        pixel_aspect = float(stream_aspect ** (1 if video["rotation"] % 180 == 0 else -1))
        assert thumbnail.width / thumbnail.height == pytest.approx(pixel_aspect * width / height, rel=0.02)
        small = [image.resize((32, 32), Image.Resampling.BOX) for image in (Image.fromarray(upright.copy()), thumbnail)]
        difference = np.abs(np.asarray(small[0], float) - np.asarray(small[1], float)).mean()
        assert difference < 6, f"the thumbnail at {segment['best_frame_s']} s is another picture ({difference:.1f})"


@pytest.mark.parametrize("table", TABLES)
def test_every_reader_reads_every_table(table: str, open_index: Path) -> None:
    pattern = str(open_index / table / "*.parquet")
    paths = sorted((open_index / table).glob("*.parquet"))
    schema = pq.read_schema(paths[0])
    n = sum(pq.read_metadata(path).num_rows for path in paths)
    assert not [f.name for f in schema if pa.types.is_null(f.type) or isinstance(f.type, pa.BaseExtensionType)]
    assert all(f.metadata and f.metadata[b"description"] for f in schema)
    assert pq.read_table(open_index / table).num_rows == n
    assert len(pd.read_parquet(open_index / table)) == n
    assert pl.read_parquet(pattern).height == n
    assert len(duckdb.sql(f"select * from '{pattern}'").fetchall()) == n
