"""Processes of the real job are killed; the same command again gives the tables of an undisturbed run.

Every scenario of the crash matrix is nightly; one run that loses a worker of each kind is in the normal suite, and so
are kills at every storage operation of a commit, without Ray (tests/pipeline/test_commits.py).
"""

from pathlib import Path

import pytest

from tests.jobs.crash_matrix import SCENARIOS, TABLE, make_archive, run_scenario, undisturbed_run
from tests.jobs.page_table import PAGE, row_name

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


def test_the_page_has_rows_of_scenarios_only() -> None:
    assert TABLE.begin in PAGE.read_text()
    found = [row_name(row) for row in TABLE.rows()]
    assert found == [name for name in SCENARIOS if name in found]
    assert found
