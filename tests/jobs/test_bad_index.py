"""What is no index, an empty one, a newer one or a locked one: one clear line each, and nothing changed."""

import json
from pathlib import Path

import pytest

import jobs.ask
import jobs.report
import jobs.search
from pipeline.index.lock import index_lock
from pipeline.index.snapshot import SNAPSHOT, Index
from tests.jobs.conftest import files_of, job

JOBS = {
    "search": (jobs.search.main, ["a red circle"]),
    "ask": (jobs.ask.main, ["--question", "Is there a dog?"]),
    "report": (jobs.report.main, ["--output", "{tmp}/report.html"]),
}


def not_an_index(folder: Path) -> None:
    folder.mkdir()
    (folder / "holiday.txt").write_text("no index")


def empty(folder: Path) -> None:
    Index.create(str(folder))


def newer(folder: Path) -> None:
    Index.create(str(folder))
    snapshot = json.loads((folder / SNAPSHOT).read_text())
    (folder / SNAPSHOT).write_text(json.dumps(snapshot | {"schema_version": 99}))


def damaged(folder: Path) -> None:
    Index.create(str(folder))
    (folder / SNAPSHOT).write_text("{")


BAD = {
    "not an index": (not_an_index, "is not an index: it has no _state/snapshot.json"),
    "newer": (newer, "was written with schema version 99; this program reads up to"),
    "damaged": (damaged, "is not a snapshot of an index"),
    "empty": (empty, "holds no vectors yet: nothing was indexed|records no finished run of jobs.index"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("name", JOBS)
def test_one_line_and_nothing_changed(name: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, messages = BAD[kind]
    make(tmp_path / "index")
    before = files_of(tmp_path)
    main, flags = JOBS[name]
    code = main(["--index", str(tmp_path / "index"), *(flag.replace("{tmp}", str(tmp_path)) for flag in flags)])
    said = capsys.readouterr()
    if (name, kind) == ("report", "empty"):  # a page that says so
        assert code == 0
        return
    assert code == 2
    assert any(message in said.err for message in messages.split("|")), said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert files_of(tmp_path) == before


def test_a_locked_index_is_read_but_not_asked(indexed: Path) -> None:
    with index_lock(Index.open(str(indexed)).storage):
        before = files_of(indexed)
        ended = job("ask", "--index", str(indexed), "--question", "Is there a dog?")
        assert ended.code == 5
        assert ended.err.count("\n") == 1
        assert "process" in ended.err
        assert job("search", "--index", str(indexed), "a red circle").code == 0
        assert files_of(indexed) == before


def test_a_refusal_is_json_where_the_log_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = Index.create(str(tmp_path / "index"))
    assert jobs.ask.main(["--index", index.url, "--question", "What?", "--log-format", "json"]) == 2
    said = json.loads(capsys.readouterr().err)
    assert said["event"] == "error"
    assert said["exit_code"] == 2
    assert "records no finished run of jobs.index" in said["text"]
