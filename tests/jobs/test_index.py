"""The main job as users run it: what it leaves, what it refuses, what a crash costs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.archive import render_archive, render_video
from tests.jobs.conftest import QUESTION, ROOT, files_of, index_job, job
from tests.jobs.tables import assert_same_index, records, rows


def test_every_video_has_its_rows(indexed: Path) -> None:
    videos = records(indexed, "videos").values()
    assert {v["name"]: (v["status"], v["n_clips"]) for v in videos} == {
        "a.mp4": ("indexed", 1),
        "b with space.mkv": ("indexed", 2),
        "long.mp4": ("indexed", 10),
    }
    clips = records(indexed, "clips")
    assert len(clips) == 13
    captions = records(indexed, "captions").values()
    assert {c["clip_id"] for c in captions} == {key[0] for key in clips}
    assert all(c["llm_flops_ratio"] < 1 and c["visual_tokens_per_layer"][0] == c["n_visual_tokens"] for c in captions)
    answers = records(indexed, "answers").values()
    assert sorted(a["video_id"] for a in answers) == sorted(v["video_id"] for v in videos)
    assert all(a["evidence"] and a["question"] == QUESTION and a["scope"] == "video" for a in answers)
    assert job("verify", "--index", str(indexed)).code == 0


def test_a_long_video_is_one_story_across_its_items(indexed: Path) -> None:
    """Frames of the 300 s video: one a second, no gap or repeat where two items meet, boundary scores across it."""
    video_id = next(v["video_id"] for v in records(indexed, "videos").values() if v["name"] == "long.mp4")
    frames = sorted(f["pts_s"] for f in records(indexed, "frames").values() if f["video_id"] == video_id)
    assert frames == [float(s) for s in range(300)]
    segments = sorted(
        (s["start_s"], s["boundary_score"]) for s in records(indexed, "segments").values() if s["video_id"] == video_id
    )
    assert [score is None for _, score in segments] == [True] + [False] * (len(segments) - 1)
    (answer,) = (a for a in records(indexed, "answers").values() if a["video_id"] == video_id)
    assert answer["n_visual_tokens"] == 32 * 16, "32 frames from the whole video"
    assert (answer["start_s"], answer["end_s"]) == (0.0, 300.0)


def test_a_run_that_stands_still_ends_in_one_line(archive: Path, tmp_path: Path) -> None:
    """Starting a worker takes longer than this patience."""
    patience = ("--patience", "1s")
    ended = job("index", str(archive), "--output", str(tmp_path / "i"), "--model", "builtin", *patience)
    assert ended.code == 1
    (error,) = (line for line in ended.err.splitlines() if line.startswith("error: "))
    assert "no worker finished anything for 1 s" in error
    assert "Traceback" not in ended.err


def test_again_does_nothing_and_changes_nothing(archive: Path, indexed: Path) -> None:
    before = files_of(indexed)
    ended = index_job([archive], indexed, "--question", QUESTION, "--max-new-tokens", "8")
    assert ended.code == 0, ended.err
    assert "3 unchanged" in ended.err
    assert "pools:" not in ended.err, "Ray was started"
    after = files_of(indexed)
    new = after.keys() - before.keys()
    assert {name.split("/")[0] for name in new} == {"runs"}
    assert len(new) == 1
    assert {name: after[name] for name in before} == before


@pytest.mark.nightly
def test_only_what_is_new_is_touched(tmp_path: Path) -> None:
    """A new video, a changed one, a new question: rows of the untouched video stay byte for byte."""
    archive = tmp_path / "archive"
    for name, seed in (("keep.mp4", 1), ("change.mp4", 2)):
        render_video(archive / name, 5, seed)
    flags = ["--max-new-tokens", "4"]
    assert index_job([archive], tmp_path / "index", *flags).code == 0
    before = records(tmp_path / "index", "clips")
    render_video(archive / "change.mp4", 9, 5)
    render_video(archive / "new.mp4", 4, 6)
    ended = index_job([archive], tmp_path / "index", *flags, "--question", "Is there a circle?")
    assert ended.code == 0, ended.err
    assert "1 answer, 1 changed, 1 new" in ended.err
    after = records(tmp_path / "index", "clips")
    keep = next(v["video_id"] for v in records(tmp_path / "index", "videos").values() if v["name"] == "keep.mp4")
    for key, row in before.items():
        if row["video_id"] == keep:
            assert after[key] == row
    assert len(records(tmp_path / "index", "answers")) == 3
    assert {v["status"] for v in records(tmp_path / "index", "videos").values()} == {"indexed"}
    assert job("verify", "--index", str(tmp_path / "index")).code == 0

    refused = index_job([archive], tmp_path / "index", "--max-new-tokens", "4", "--sampling", "every=2s")
    assert refused.code == 2
    assert "--redo sample" in refused.err
    (archive / "new.mp4").unlink()
    assert index_job([archive], tmp_path / "index", *flags).code == 0
    statuses = {v["name"]: v["status"] for v in records(tmp_path / "index", "videos").values()}
    assert statuses == {"keep.mp4": "indexed", "change.mp4": "indexed", "new.mp4": "deleted"}


@pytest.mark.nightly
def test_a_killed_run_loses_nothing(archive: Path, indexed: Path, tmp_path: Path) -> None:
    """SIGKILL of the driver once something is staged, then the same command: the tables of an undisturbed run."""
    output = tmp_path / "index"
    command = [sys.executable, "-m", "jobs.index", str(archive), "--output", str(output), "--model", "builtin"]
    command += ["--num-cpus", "2", "--question", QUESTION, "--max-new-tokens", "8"]
    driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    staging = output / "_state" / "staging"
    deadline = time.monotonic() + 200
    while not (staging.is_dir() and list(staging.glob("*.parquet"))):
        assert driver.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    staged = {p.name: p.stat().st_mtime_ns for p in staging.glob("*.parquet")}
    assert staged
    ended = index_job([archive], output, "--question", QUESTION, "--max-new-tokens", "8")
    assert ended.code == 0, ended.err
    assert not list(staging.glob("*.parquet"))
    assert_same_index(output, indexed)
    assert job("verify", "--index", str(output)).code == 0


def test_sigterm_stops_within_two_seconds(tmp_path: Path) -> None:
    archive = render_archive(tmp_path / "archive")
    command = [
        sys.executable,
        "-m",
        "jobs.index",
        str(archive),
        "--output",
        str(tmp_path / "index"),
        "--model",
        "builtin",
    ]
    driver = subprocess.Popen([*command, "--num-cpus", "2"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert driver.stderr is not None
    for line in driver.stderr:
        if b"pools:" in line:
            break
    started = time.monotonic()
    driver.terminate()
    _, err = driver.communicate(timeout=30)
    assert driver.returncode == 143
    assert b"run the same command again" in err
    assert time.monotonic() - started < 10, "a bound against hanging; the promise of 2 s is measured, not asserted"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["{archive}", "--output", "{tmp}/x", "--model", "no/such/model"], "no such folder"),
        (["{archive}", "--output", "{tmp}/x", "--model", "{archive}"], "safetensors"),
        (["{tmp}/missing", "--output", "{tmp}/x"], "not found; expected a file"),
        (["{tmp}", "--output", "{tmp}/x"], "no video found"),
        (["{archive}", "--output", "/proc/x"], "/proc/x"),
        (["{archive}", "--output", "{tmp}/x", "--device", "cuda"], "GPU"),
        (["{archive}", "--output", "{tmp}/x", "--sampling", "every=0s"], "every=1s"),
        (["{archive}", "--output", "{tmp}/x", "--p", "0"], "--p"),
        (["{archive}", "--output", "{tmp}/x", "--question", " "], "empty question"),
        (["{archive}", "--output", "{tmp}/x", "--prunee", "none"], "--prunee"),
    ],
)
def test_bad_usage_is_one_clear_line(flags: list[str], says: str, archive: Path, tmp_path: Path) -> None:
    places = {"archive": str(archive), "tmp": str(tmp_path)}
    args = [flag.format(**places) for flag in flags]
    if "--model" not in args:
        args += ["--model", "builtin"]
    ended = job("index", *args, env={"HF_HUB_OFFLINE": "1"})
    assert ended.code == 2
    last = ended.err.strip().splitlines()[-1]
    assert says in last
    assert "Traceback" not in ended.err
    assert not (tmp_path / "x" / "_state" / "staging").exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [((), "Ray does not start on this machine"), (("--address", "127.0.0.1:1"), "Ray cannot be joined at 127.0.0.1:1")],
)
def test_ray_that_cannot_be_had_is_one_clear_line(flags: tuple[str, ...], says: str, tmp_path: Path) -> None:
    """A folder name too long for Ray's sockets, and a head node that is not there."""
    render_video(tmp_path / "archive" / "a.mp4", 4, 1)
    long = {"RAY_TMPDIR": str(tmp_path / ("x" * 100))}
    ended = job(
        "index", str(tmp_path / "archive"), "--output", str(tmp_path / "i"), "--model", "builtin", *flags, env=long
    )
    assert ended.code == 1
    assert ended.err.strip().splitlines()[-1].startswith(f"error: {says}: ")
    assert "Traceback" not in ended.err


def test_one_fake_gpu(archive: Path, tmp_path: Path) -> None:
    ended = index_job([archive / "a.mp4"], tmp_path / "index", "--num-gpus", "1", "--max-new-tokens", "4")
    assert ended.code == 0, ended.err
    assert "describe 1 x 1 GPU" in ended.err
    assert len(records(tmp_path / "index", "captions")) == 1


def test_the_run_is_in_the_books(indexed: Path) -> None:
    first = min(rows(indexed, "runs").to_pylist(), key=lambda run: run["started_at"])
    assert first["counts"]["indexed"] == 3
    assert first["outcome"] == "ok"
    assert json.loads(first["config"])["questions"] == [QUESTION]
    assert {s["stage"] for s in first["stages"]} == {"probe", "decode", "embed", "describe"}
    assert not any(secret in first["config"] for secret in ("TOKEN", os.environ.get("RAY_AUTH_TOKEN", "no token")))
