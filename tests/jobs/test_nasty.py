"""A hundred files made to harm: each ends in one row, nothing outside is opened or called, the neighbours are well."""

import os
from collections import Counter
from pathlib import Path

import pytest

import jobs.index
from pipeline.execution.in_process import InProcess
from tests import nasty
from tests.archive import render_video
from tests.jobs.conftest import job
from tests.jobs.tables import records
from tests.jobs.test_hostile_archive import listener, opened
from tests.jobs.test_retry import signals_kept
from tests.pipeline.in_process import CountingExecutor

__all__ = ["signals_kept"]  # a fixture
FLAGS = ("--model", "builtin", "--caption", "none", "--max-failed", "1000", "--decode-deadline", "3")


@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_each_nasty_file_is_one_row(slow: bool, tmp_path: Path, signals_kept: None) -> None:
    outside, archive, index = tmp_path / "outside.mp4", tmp_path / "archive", tmp_path / "index"
    outside.write_bytes(nasty.healthy("mp4"))
    names = nasty.make(archive, outside, slow)
    for neighbour in ("0_first.mp4", "z_last.mp4"):
        render_video(archive / neighbour, 5, seed=1)
    command = [str(archive), "--output", str(index), *FLAGS]
    with listener(18999) as heard, opened(outside) as seen:
        assert jobs.index.main(command, InProcess()) == 0
    assert (heard, seen) == ([], [])
    assert not (tmp_path / "owned").exists()
    assert not os.path.lexists("owned")
    videos = {v["name"]: v for v in records(index, "videos").values()}
    assert videos.keys() == names | {"0_first.mp4", "z_last.mp4"}
    for name in (*nasty.HEALTHY_NAMES, "0_first.mp4", "z_last.mp4"):
        assert (videos[name]["status"], videos[name]["n_clips"]) == ("indexed", 1), name
    for name in nasty.texts(outside):
        assert videos[name]["error_class"] in ("Refused", "NotAVideo"), name
    classes = Counter(v["error_class"] for v in videos.values())
    assert classes.keys() <= {None, "Refused", "NotAVideo", "NoFrames", "TooLarge", "DecodeTimeout"}
    assert classes["DecodeTimeout"] == slow, "only a terabyte of nothing takes longer than its deadline"
    audit = job("verify", "--index", str(index))
    assert audit.code == 0, audit.err

    counts = CountingExecutor()
    assert jobs.index.main(command, counts) == 0
    assert counts.did["probes"] == classes["DecodeTimeout"], "what failed for good is not opened again"
