"""An index made by version 0.1 is read, searched, asked and gone on with, as if this version had made it."""

from pathlib import Path

import pytest

import jobs.ask
import jobs.index
import jobs.search
import jobs.status
import jobs.verify
from pipeline.index.snapshot import Index
from tests.fault_proxy import FaultProxy
from tests.old_index import ARCHIVE, DATA, NEW_VIDEO, copy_of_old_index, upload
from tests.pipeline.conftest import s3_proxy  # noqa: F401  # a fixture: the S3 server of the tests of pipeline
from tests.pipeline.in_process import CountingExecutor

QUESTION = "Which of these appears: ring, bar, circle or square?"


@pytest.fixture
def old_index(s3_proxy: FaultProxy, tmp_path: Path) -> Path:  # noqa: F811  # the fixture above
    upload()
    return copy_of_old_index(tmp_path)


def index_again(output: Path, executor: CountingExecutor) -> int:
    flags = ["--output", str(output), "--model", "builtin", "--question", QUESTION]
    return jobs.index.main([ARCHIVE, *flags], executor)


def test_it_is_read_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    place = str(DATA / "index")
    assert jobs.status.main(["--index", place]) == 0
    assert "3 videos: 2 indexed, 1 failed" in capsys.readouterr().out
    assert jobs.verify.main(["--index", place]) == 0
    assert (
        "3 videos, 2 clips, 2 captions, 7 segments, 16 frames, 4 answers, 0 shots, 1 errors" in capsys.readouterr().out
    )
    assert jobs.search.main(["--index", place, "a circle", "--top", "3"]) == 0
    assert "of 7 segments searched" in capsys.readouterr().out


def test_nothing_of_it_is_made_again(old_index: Path) -> None:
    counts = CountingExecutor()
    assert index_again(old_index, counts) == 0
    assert not counts.did["decodes"]
    assert not counts.did["models"]
    assert jobs.verify.main(["--index", str(old_index)]) == 0


def test_a_new_video_joins_it_and_a_question_is_asked_of_all(old_index: Path) -> None:
    before = Index.open(str(old_index)).read("clips").sort_by("clip_id")
    upload(NEW_VIDEO)
    counts = CountingExecutor()
    assert index_again(old_index, counts) == 0
    assert len(counts.opened) == 1
    asked = ["--question", "What is it?", "--abstain-below", "-1"]
    assert jobs.ask.main(["--index", str(old_index), *asked], CountingExecutor()) == 0
    assert jobs.verify.main(["--index", str(old_index)]) == 0
    index = Index.open(str(old_index))
    clips, answers = index.read("clips").sort_by("clip_id"), index.read("answers")
    assert [row for row in clips.to_pylist() if row["clip_id"] in before["clip_id"].to_pylist()] == before.to_pylist()
    assert set(answers["question"].to_pylist()) == {QUESTION, "Is there a red circle? {yes|no}", "What is it?"}
    assert answers["question"].to_pylist().count("What is it?") == 3
