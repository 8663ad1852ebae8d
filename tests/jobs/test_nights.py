"""Nights of one index with the real job: what changed is decoded, described and rewritten, and nothing else."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.models.checkpoints import BUILTIN
from tests.archive import render_video
from tests.jobs.conftest import Ended, files_of, index_job, job
from tests.jobs.tables import records, rows

FLAGS = ("--max-new-tokens", "4")


def last_run(index: Path) -> dict[str, int]:
    """Items each stage worked on in the newest run: probes, decodes, embeddings, and descriptions by the Video LLM."""
    run = max(rows(index, "runs").to_pylist(), key=lambda run: run["started_at"])
    return {stage["stage"]: stage["items"] for stage in run["stages"]}


def statuses(index: Path) -> dict[str, str]:
    return {v["name"]: v["status"] for v in records(index, "videos").values()}


def night(index: Path, *roots: Path, flags: tuple[str, ...] = ()) -> Ended:
    ended = index_job(roots, index, *FLAGS, *flags)
    assert ended.code in (0, 2), ended.err
    if ended.code == 0:
        audit = job("verify", "--index", str(index))
        assert audit.code == 0, audit.err
    return ended


def touched(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    """Tables of which a file was added, removed or rewritten."""
    names = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return {name.split("/")[0] for name in names} - {"_state"}


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_limit_then_a_prompt_then_a_second_root_then_another_encoder(tmp_path: Path) -> None:
    archive, second, index = tmp_path / "archive", tmp_path / "second", tmp_path / "index"
    for number, name in enumerate(("old.mp4", "new.mp4")):
        os.utime(render_video(archive / name, 4, number), (1_700_000_000 + number,) * 2)
    night(index, archive, flags=("--limit", "1"))
    assert statuses(index) == {"old.mp4": "pending", "new.mp4": "indexed"}, "newest first"
    assert last_run(index) == {"probe": 1, "decode": 1, "embed": 1, "describe": 1}

    render_video(archive / "old.mp4", 6, 7)  # it changes while it waits, and something newer goes first again
    os.utime(archive / "old.mp4", (1_600_000_000,) * 2)
    render_video(archive / "newest.mp4", 4, 8)
    night(index, archive, flags=("--limit", "1"))
    assert statuses(index) == {"old.mp4": "pending", "new.mp4": "indexed", "newest.mp4": "indexed"}
    waiting = next(v for v in records(index, "videos").values() if v["name"] == "old.mp4")
    assert waiting["size_bytes"] == (archive / "old.mp4").stat().st_size, "it waits in its newest version"

    (archive / "old.mp4").unlink()
    before = files_of(index)
    night(index, archive, flags=("--caption-prompt", "What moves?"))
    assert statuses(index) == {"old.mp4": "deleted", "new.mp4": "indexed", "newest.mp4": "indexed"}
    assert last_run(index) == {"decode": 2, "describe": 2}, "stored segments: no probe, no embedding"
    assert touched(before, files_of(index)) == {"captions", "videos", "runs"}
    assert len(records(index, "captions")) == 4

    render_video(second / "other.mp4", 4, 9)
    encoder = tmp_path / "encoder"
    shutil.copytree(BUILTIN / "encoder", encoder)
    other = ("--encoder", str(encoder))
    before = files_of(index)
    refused = night(index, second, flags=other)
    assert refused.code == 2, "one encoder per index, also for a root that is new"
    assert "--redo embed" in refused.err.splitlines()[-1]
    assert night(index, archive, flags=(*other, "--caption-prompt", "What moves?")).code == 2
    assert touched(before, files_of(index)) == set()
    night(index, second)
    assert last_run(index) == {"probe": 1, "decode": 1, "embed": 1, "describe": 1}
    assert set(statuses(index).values()) == {"indexed", "deleted"}, "a root that is not named loses nothing"

    commit = _commit(index)
    night(index, archive, flags=(*other, "--redo", "embed"))
    assert _commit(index) == commit + 1, "the encoder changes in one commit"
    assert _encoders(index) == {f"{encoder}@"}, "no vector of the old one is left"
    assert statuses(index)["other.mp4"] == "pending", "it lost its vectors with the others, and waits for its turn"
    assert len([c for c in records(index, "captions").values()]) == 4, "both prompts of both videos"
    night(index, archive, second, flags=other)
    assert statuses(index)["other.mp4"] == "indexed"
    assert last_run(index)["probe"] == 1


def _commit(index: Path) -> int:
    return max(int(path.stem) for path in (index / "_state" / "commits").glob("*.json"))


def _encoders(index: Path) -> set[Any]:
    tables = ("clips", "segments", "frames")
    return {row["encoder_id"].split("@")[0] + "@" for table in tables for row in records(index, table).values()}
