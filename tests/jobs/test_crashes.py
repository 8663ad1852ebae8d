"""Processes of the real job are killed; the same command again gives the tables of an undisturbed run.

Every scenario of the crash matrix is nightly; one run that loses a worker of each kind is in the normal suite, and so
are kills at every storage operation of a commit, without Ray (tests/pipeline/index/test_commits.py).
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.archive import render_video
from tests.jobs.conftest import ROOT
from tests.jobs.crash_matrix import SCENARIOS, TABLE, job_args, make_archive, run_scenario, undisturbed_run
from tests.jobs.dying_job import CLIP_KILLS
from tests.jobs.page_table import PAGE, row_name
from tests.jobs.tables import rows

COMBINED = "each worker"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def undisturbed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    index = tmp_path_factory.mktemp("undisturbed") / "index"
    ended = undisturbed_run(tiny, index)
    assert ended.code == 0, ended.err
    return index


def test_nothing_is_lost(tiny: Path, undisturbed: Path, tmp_path: Path) -> None:
    run_scenario(COMBINED, tiny, undisturbed, tmp_path)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_is_lost_whatever_is_hit(scenario: str, tiny: Path, undisturbed: Path, tmp_path: Path) -> None:
    assert run_scenario(scenario, tiny, undisturbed, tmp_path) in TABLE.rows(), "python -m tests.jobs.crash_matrix"


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_an_item_that_kills_costs_no_other_of_its_block(tmp_path: Path) -> None:
    """Short videos share a task: it is done again each time, and only what was being described is blamed."""
    archive, index, mark = make_archive(tmp_path / "archive"), tmp_path / "index", tmp_path / "mark"
    for i in range(24):
        render_video(archive / f"{i}.mp4", 3, seed=i)
    command = [sys.executable, "-m", "tests.jobs.dying_job", CLIP_KILLS, str(mark), *job_args(archive, index)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert len(list(mark.rglob("[0-9]"))) == 3, "it struck three times"
    videos = rows(index, "videos").to_pylist()
    assert {Path(v["uri"]).stem for v in videos if v["status"] != "indexed"} == {"b"}
    clips = rows(index, "clips").select(["uri", "clip_index"]).to_pylist()
    assert len(clips) == 26
    assert [c["clip_index"] for c in clips if Path(c["uri"]).stem == "b"] == [0]
    assert [Path(e["uri"]).stem for e in rows(index, "errors").to_pylist()] == ["b"]


def test_the_page_has_rows_of_scenarios_only() -> None:
    assert TABLE.begin in PAGE.read_text()
    found = [row_name(row) for row in TABLE.rows()]
    assert found == [name for name in SCENARIOS if name in found]
    assert found
