"""jobs.index --dry-run: what would be done and why; nothing written, no lock taken, no video opened unless asked."""

from pathlib import Path

from pipeline.index.lock import index_lock
from pipeline.index.snapshot import Index
from tests.archive import render_video
from tests.jobs.conftest import files_of, index_job


def test_a_first_run_knows_no_costs_and_leaves_nothing(archive: Path, tmp_path: Path) -> None:
    ended = index_job([archive], tmp_path / "index", "--dry-run")
    assert ended.code == 0, ended.err
    assert "3 new" in ended.out
    assert "unknown hours" in ended.out
    assert not (tmp_path / "index").exists()


def test_headers_tell_hours(archive: Path, tmp_path: Path) -> None:
    ended = index_job([archive / "long.mp4"], tmp_path / "index", "--dry-run", "--probe")
    assert ended.code == 0, ended.err
    assert f"{300 / 3600:.3g} hours of video" in ended.out
    refused = index_job([archive], tmp_path / "index", "--probe")
    assert refused.code == 2
    assert "--dry-run" in refused.err


def test_an_index_tells_costs_while_another_run_holds_it(indexed: Path, tmp_path: Path) -> None:
    """Ratios of the index: as many bytes again are as many hours, and the directory stays as it is."""
    new = render_video(tmp_path / "new.mp4", 60, 9)
    with index_lock(Index.open(str(indexed)).storage):
        before = files_of(indexed)
        ended = index_job([new], indexed, "--dry-run", "--max-new-tokens", "8")
        assert files_of(indexed) == before
    assert ended.code == 0, ended.err
    assert "1 new" in ended.out
    assert "visual tokens before pruning" in ended.out
    assert "decode" in ended.out.split("hours of video")[1]
