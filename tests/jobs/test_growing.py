"""A second describe node that comes in the middle of a run is used, and when it goes no row is lost."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.archive import render_video
from tests.jobs.cluster import WAIT_S, download, local_cluster, upload
from tests.jobs.tables import rows
from tests.s3 import BUCKET

VIDEOS = 160
FLAGS = ("--model", "builtin", "--caption", "none", "--batch-size", "1")


def described_on(mark: Path) -> list[str]:
    """Nodes, in the order in which they described."""
    return [line.split()[0] for line in mark.read_text().splitlines()] if mark.exists() else []


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_nodes_may_come_and_go(tmp_path: Path) -> None:
    for i in range(VIDEOS):
        render_video(tmp_path / "archive" / f"{i}.mp4", 3, seed=i)
    mark = tmp_path / "described"
    with local_cluster(n_workers=1) as cluster:
        archive = upload(tmp_path / "archive", "growing")
        output = f"s3://{BUCKET}/growing-index"
        job = cluster.submit(archive, "--output", output, *FLAGS, module=("tests.jobs.slow_job", str(mark)))
        wait_for(lambda: len(described_on(mark)) >= 2)
        first = described_on(mark)[0]
        cluster.add_node()
        wait_for(lambda: sum(node != first for node in described_on(mark)) >= 2)
        second = next(node for node in described_on(mark) if node != first)
        cluster.lose_node(second)
        assert cluster.wait(job) == "SUCCEEDED", cluster.client.get_job_logs(job)[-3000:]
        index = download("growing-index", tmp_path / "index")
    videos = rows(index, "videos").to_pylist()
    assert [v["status"] for v in videos] == ["indexed"] * VIDEOS
    assert rows(index, "clips").num_rows == VIDEOS
    assert not rows(index, "errors").num_rows
