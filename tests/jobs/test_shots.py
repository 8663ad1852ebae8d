"""jobs.shots as people run it: what it leaves, that it does nothing twice, and what a failure and a kill leave."""

import shutil
from pathlib import Path

import pyarrow.compute as pc
import pytest

import jobs.purge
import jobs.shots
import jobs.verify
from pipeline.index.snapshot import Index
from pipeline.index.staging import staged_keys
from pipeline.shots import run
from tests.jobs.conftest import index_job, job


@pytest.fixture
def index(archive: Path, indexed: Path, tmp_path: Path) -> Index:
    shutil.copytree(indexed, tmp_path / "index")
    return Index.open(str(tmp_path / "index"))


def shots_of(index: Index) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for row in index.read("shots").sort_by([("uri", "ascending"), ("shot_index", "ascending")]).to_pylist():
        found.setdefault(row["uri"].rpartition("/")[2], []).append((row["start_s"], row["end_s"]))
    return found


def test_shots_tile_each_video_and_are_found_once(index: Index, capsys: pytest.CaptureFixture[str]) -> None:
    """The archive's pictures change every three seconds."""
    assert jobs.shots.main(["--index", index.url]) == 0
    found = shots_of(index)
    assert len(found) == 3
    starts = [start for start, _ in found["a.mp4"]]
    assert starts == [0, 3, 6]
    for spans in found.values():
        assert all(spans[at][1] == spans[at + 1][0] for at in range(len(spans) - 1))
    assert jobs.verify.main(["--index", index.url]) == 0
    capsys.readouterr()
    commit = index.snapshot().commit
    assert jobs.shots.main(["--index", index.url]) == 0
    assert "0 videos found, 3 had theirs" in capsys.readouterr().out
    assert index.snapshot().commit == commit
    assert jobs.shots.main(["--index", index.url, "--redo", "--where", "name = 'a.mp4'"]) == 0
    assert shots_of(index) == found
    assert jobs.purge.main(["--index", index.url, "--video", index.read("videos")["uri"][0].as_py(), "--yes"]) == 0
    assert len(shots_of(index)) == 2


def test_a_killed_run_is_gone_on_with(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped before its commit: what was staged is not looked at again."""

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run, "_commit", stopped)
        assert jobs.shots.main(["--index", index.url]) == 130
    assert len(staged_keys(index.storage)) == 3
    assert not index.read("shots").num_rows
    with monkeypatch.context() as patched:
        patched.setattr(run, "as_indexed", stopped)
        assert jobs.shots.main(["--index", index.url]) == 0
    assert len(shots_of(index)) == 3


def test_a_video_that_changed_is_an_error_row_until_it_is_indexed_again(tmp_path: Path, archive: Path) -> None:
    films, output = tmp_path / "films", tmp_path / "index"
    shutil.copytree(archive / "sub", films)
    shutil.copy(archive / "a.mp4", films / "a.mp4")
    assert index_job([films], output, "--caption", "none", "--shots").code == 0
    index = Index.open(str(output))
    assert len(shots_of(index)) == 2
    before = shots_of(index)["a.mp4"]
    shutil.copy(archive / "sub" / "b with space.mkv", films / "a.mp4")
    ended = job("shots", "--index", str(output), "--redo")
    assert ended.code == 0
    errors = index.read("errors", filter=pc.field("stage") == "shots").to_pylist()
    assert [row["error_class"] for row in errors] == ["ChangedWhileRead"]
    assert shots_of(index)["a.mp4"] == before
    assert index_job([films], output, "--caption", "none", "--shots").code == 0
    assert len(shots_of(index)["a.mp4"]) > len(before)
    assert jobs.verify.main(["--index", str(output)]) == 0


def test_bad_input_is_one_line(index: Index) -> None:
    for flags, message in ((["--workers", "0"], "--workers 0"), (["--where", "nosuch = 1"], "no column")):
        ended = job("shots", "--index", index.url, *flags)
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert message in ended.err
