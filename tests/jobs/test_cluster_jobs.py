"""Jobs on a local cluster of several nodes over an S3 archive: rows of a laptop, nights, secrets, metrics, faults."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.archive import render_video
from tests.jobs import node_faults
from tests.jobs.cluster import LocalCluster, download, last_json, local_cluster, upload
from tests.jobs.conftest import QUESTION, ROOT, index_job, job
from tests.jobs.tables import KEYS, NOT_COMPARED, numbers_of, rows
from tests.s3 import BUCKET, SECRET
from tests.videos import VIDEOS, needs_videos

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1800)]
FLAGS = ("--model", "builtin", "--max-new-tokens", "4")
OF_THE_PLACE = NOT_COMPARED | {
    "uri",
    "root",
    "video_id",
    "clip_id",
    "segment_id",
    "version",
    "video_version",
    "bytes_read",
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with local_cluster() as cluster:
        yield cluster


def by_name(index: Path, table: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Rows of a table by what does not depend on where the archive lies: the file's name in place of the video's id."""
    names = {v["video_id"]: v["name"] for v in rows(index, "videos").to_pylist()}
    found = {}
    for row in rows(index, table).to_pylist():
        key = tuple(str(row[k]).replace(row["video_id"], names[row["video_id"]]) for k in KEYS[table])
        assert key not in found, f"{table}: {key} stands twice"
        found[key] = row
    return found


def assert_same_rows(left: Path, right: Path) -> None:
    """Equal rows wherever the archive and the index lie."""
    for table in KEYS:
        ours, theirs = by_name(left, table), by_name(right, table)
        assert ours.keys() == theirs.keys(), table
        for key, row in ours.items():
            for column in row.keys() - OF_THE_PLACE:
                value, other = row[column], theirs[key][column]
                if column in ("embedding", "evidence", "relevance", "boundary_score"):
                    assert numbers_of(value) == pytest.approx(numbers_of(other), abs=1e-3), (table, key, column)
                else:
                    assert value == other, (table, key, column)


@needs_videos
def test_a_submitted_job_over_s3_gives_the_rows_of_a_local_run(cluster: LocalCluster, tmp_path: Path) -> None:
    """`ray job submit` itself, over the open sample; and no credential is left anywhere; and metrics are scraped."""
    asked = ("--question", QUESTION, "--max-new-tokens", "8")
    archive = upload(VIDEOS / "open", "open")
    command = [str(Path(sys.executable).parent / "ray"), "job", "submit", "--address", cluster.address, "--no-wait"]
    command += ["--submission-id", "open-1", "--", sys.executable, "-m", "jobs.index", archive]
    command += ["--output", f"s3://{BUCKET}/open-index", "--model", "builtin", "--json", *asked]
    subprocess.run(command, check=True, capture_output=True, cwd="/", timeout=120)
    scraped = ""
    while cluster.client.get_job_status("open-1").value in ("PENDING", "RUNNING"):
        scraped = found if "adatp_clips" in (found := cluster.metrics()) else scraped
        time.sleep(1)
    log = cluster.client.get_job_logs("open-1")
    assert cluster.wait("open-1") == "SUCCEEDED", log[-3000:]

    index = download("open-index", tmp_path / "s3")
    local = index_job([VIDEOS / "open"], tmp_path / "local", *asked)
    assert local.code == 0, local.err
    assert_same_rows(index, tmp_path / "local")
    videos = rows(index, "videos").to_pylist()
    assert all(v["bytes_read"] >= v["size_bytes"] for v in videos), (
        "small objects are fetched whole, for probe and items"
    )
    summary = last_json(log)
    assert summary["exit_code"] == 0
    assert summary["listed"] == len(videos) == sum(summary["videos"].values())
    assert summary["busy"].keys() == {"decode", "describe"}

    for name in ("ray_adatp_clips", "ray_adatp_stage_busy_seconds"):
        assert name in scraped, "the metrics port was never seen to say it"
    assert 'stage="decode"' in scraped

    info = json.dumps([asdict_of(found) for found in cluster.client.list_jobs()], default=str)
    ray_logs = [p for p in cluster.folder.rglob("*") if p.is_file() and not p.is_symlink()]
    places = {str(p): p.read_bytes() for p in [*ray_logs, *(p for p in index.rglob("*") if p.is_file())]}
    places |= {"job info": info.encode(), "job log": log.encode(), "metrics": scraped.encode()}
    assert len(ray_logs) > 10
    config = rows(index, "runs")["config"].to_pylist()
    assert config
    for secret in (SECRET, os.environ["AWS_ACCESS_KEY_ID"], cluster.token):
        assert not [place for place, data in places.items() if secret.encode() in data]


def asdict_of(found: Any) -> dict[str, Any]:
    return asdict(found) if hasattr(found, "__dataclass_fields__") else dict(found)


def test_a_second_night_touches_what_changed_and_nothing_else(cluster: LocalCluster, tmp_path: Path) -> None:
    folder, client = tmp_path / "archive", boto3.client("s3")
    for number in range(4):
        render_video(folder / f"{number}.mp4", 4, number)
    archive, output = upload(folder, "nights"), f"s3://{BUCKET}/nights-index"
    first = last_json(cluster.run(archive, "--output", output, "--json", *FLAGS))
    assert (first["tried"], first["videos"]["indexed"]) == (4, 4)
    before = download("nights-index", tmp_path / "before")

    render_video(folder / "1.mp4", 6, 11)
    for number in (4, 5, 6):
        render_video(folder / f"{number}.mp4", 4, number)
    (folder / "2.mp4").unlink()
    for name in ("1.mp4", "4.mp4", "5.mp4", "6.mp4"):  # only these: others keep their etag
        client.upload_file(str(folder / name), BUCKET, f"nights/{name}")
    client.delete_object(Bucket=BUCKET, Key="nights/2.mp4")
    second = last_json(cluster.run(archive, "--output", output, "--json", *FLAGS))
    assert (second["listed"], second["tried"]) == (6, 4), "three new and one changed"
    assert second["videos"] | {"indexed": 6, "deleted": 1} == second["videos"]
    after = download("nights-index", tmp_path / "after")
    stages = {s["stage"]: s["items"] for s in last_run(after)["stages"]}
    assert stages == {"probe": 4, "decode": 4, "embed": 4, "describe": 4}
    touched = {v["name"] for v in rows(after, "videos").to_pylist() if v["run_id"] == second["run_id"]}
    assert touched == {"1.mp4", "2.mp4", "4.mp4", "5.mp4", "6.mp4"}
    for table in ("clips", "captions", "segments"):
        old, new = by_name(before, table), by_name(after, table)
        kept = {key for key in old if key[0][:5] in ("0.mp4", "3.mp4")}
        assert kept
        assert all(old[key] == new[key] for key in kept), "rows of what did not change are what they were"
        assert not [row for key, row in new.items() if row["run_id"] == second["run_id"] and key in kept]

    third = last_json(cluster.run(archive, "--output", output, "--json", *FLAGS))
    assert (third["tried"], third["videos"]) == (0, second["videos"])
    assert job("verify", "--index", output).code == 0


def last_run(index: Path) -> dict[str, Any]:
    found: dict[str, Any] = max(rows(index, "runs").to_pylist(), key=lambda run: run["started_at"])
    return found


def test_a_night_is_started_once_and_ends_as_its_job_did(cluster: LocalCluster, tmp_path: Path) -> None:
    render_video(tmp_path / "archive" / "a.mp4", 4, 1)
    archive, output = upload(tmp_path / "archive", "one"), f"s3://{BUCKET}/one-index"
    night = [
        sys.executable,
        "-m",
        "jobs.night",
        "--address",
        cluster.address,
        "--python",
        sys.executable,
        "--poll",
        "1",
    ]

    def start(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*night, *args], cwd=ROOT, capture_output=True, text=True, timeout=400)

    good = ("--date", "good", "--", archive, "--output", output, *FLAGS)
    with subprocess.Popen([*night, *good], cwd=ROOT, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "night nightly-good: started\n"
        second = start(*good)
        assert first.wait(400) == 0
    assert second.returncode == 0, second.stderr
    assert "started before" in second.stdout
    assert len([found for found in cluster.client.list_jobs() if found.submission_id == "nightly-good"]) == 1

    bad = start("--date", "bad", "--", archive, "--output", output, "--p", "0")
    assert bad.returncode == 2, "the code of jobs.index itself"
    assert "--p 0.0 given" in bad.stdout
    assert cluster.token not in bad.stdout + bad.stderr + second.stdout

    stop = subprocess.Popen([*night, "--date", "stop", "--", archive, "--output", output, *FLAGS], cwd=ROOT)
    while True:
        try:
            if cluster.client.get_job_status("nightly-stop").value == "RUNNING":
                break
        except RuntimeError:  # not there yet
            pass
        time.sleep(0.5)
    cluster.client.stop_job("nightly-stop")
    assert stop.wait(120) == 143

    wrong = subprocess.run(
        [*night, "--date", "x", "--", archive, "--output", output],
        cwd=ROOT,
        env={**os.environ, "RAY_AUTH_TOKEN": "0" * 64},
        capture_output=True,
        text=True,
    )
    assert wrong.returncode == 2
    assert "refuses with 40" in wrong.stderr


@pytest.fixture(scope="module")
def faults(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("faults")
    archive = node_faults.make_archive(folder / "archive")
    return archive, node_faults.undisturbed_run(cluster, archive, folder)


@pytest.mark.parametrize("scenario", node_faults.SCENARIOS)
def test_nothing_is_lost_whatever_is_hit(
    scenario: str, cluster: LocalCluster, faults: tuple[str, Path], tmp_path: Path
) -> None:
    row = node_faults.run_scenario(scenario, cluster, *faults, tmp_path)
    assert row in node_faults.TABLE.rows(), "python -m tests.jobs.node_faults"
