"""jobs.ask as people run it: what lands in `answers`, what is not asked twice, what stays as it was."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.archive import render_video
from tests.jobs.conftest import QUESTION, Ended, files_of, index_job, job
from tests.jobs.tables import records

ALWAYS = ["--abstain-below", "-1"]


@pytest.fixture
def index(indexed: Path, tmp_path: Path) -> Path:
    """A copy to write into."""
    return Path(shutil.copytree(indexed, tmp_path / "index"))


def ask(index: Path, *flags: str) -> Ended:
    return job("ask", "--index", str(index), "--num-cpus", "2", *flags)


def answers(index: Path, question: str) -> list[dict[str, Any]]:
    return [row for row in records(index, "answers").values() if row["question"] == question]


def test_whole_videos_once_and_never_again(index: Path) -> None:
    before = files_of(index)
    question, choice = "What is in the corner?", "What shape is it? {circle|square}"
    flags = ["--question", question, "--question", choice, *ALWAYS]
    ended = ask(index, *flags, "--json")
    assert ended.code == 0, ended.err
    assert len(json.loads(ended.out)["answers"]) == 6
    spans = {s["segment_id"]: (s["start_s"], s["end_s"]) for s in records(index, "segments").values()}
    for row in (*answers(index, question), *answers(index, choice)):
        assert not row["abstained"]
        assert row["scope"] == "video"
        scores = [e["score"] for e in row["evidence"]]
        assert scores == sorted(scores, reverse=True)
        assert row["relevance"] == scores[0]
        assert all(spans[e["segment_id"]] == (e["start_s"], e["end_s"]) for e in row["evidence"])
    assert {row["answer"] for row in answers(index, choice)} <= {"circle", "square"}
    after = files_of(index)
    for table in ("clips", "captions", "segments", "frames"):
        mine = {name: data for name, data in before.items() if name.startswith(f"{table}/")}
        assert mine.items() <= after.items(), f"{table} changed"
    assert job("verify", "--index", str(index)).code == 0

    again = ask(index, *flags, "--log-format", "json")
    assert again.code == 0, again.err
    assert "pools:" not in again.err, "Ray was started"
    said = [json.loads(line) for line in again.err.splitlines()]
    assert [line["text"] for line in said if line["event"] == "plan"] == ["0 to ask, 6 answered already"]
    assert "0 asked, 6 answered by an earlier run" in again.out
    changed = {n: d for n, d in files_of(index).items() if after.get(n) != d}
    assert [name.split("/")[0] for name in changed] == ["runs"]


@pytest.mark.nightly
def test_some_clips_then_the_others(index: Path) -> None:
    question = "Is it moving?"
    flags = ["--question", question, "--scope", "clip", *ALWAYS]
    first = ask(index, *flags, "--where", "name LIKE 'b %' AND clip_index = 1")
    assert first.code == 0, first.err
    (one,) = answers(index, question)
    assert one["clip_id"].endswith("-00001")
    assert job("verify", "--index", str(index)).code == 0
    second = ask(index, *flags)
    assert second.code == 0, second.err
    assert "12 asked, 1 answered by an earlier run" in second.out
    rows = answers(index, question)
    assert {row["clip_id"] for row in rows} == {key[0] for key in records(index, "clips")}
    assert one in rows, "what was answered was asked again"
    assert job("verify", "--index", str(index)).code == 0


@pytest.mark.nightly
def test_it_abstains_without_looking_and_can_be_made_to_answer(index: Path) -> None:
    question, long = "Is there an umbrella?", f"Is there {'a red circle or ' * 40}nothing?"
    ended = ask(index, "--question", long, "--abstain-below", "2")
    assert ended.code == 0, ended.err
    assert "note: too long for the encoder, evidence is of its beginning: Is there a red circle or" in ended.err
    assert all(row["question_truncated"] and row["relevance"] < 2 for row in answers(index, long))
    ended = ask(index, "--question", question, "--abstain-below", "2")
    assert ended.code == 0, ended.err
    assert "pools:" not in ended.err, "Ray was started"
    assert ended.out.count("(abstained: nothing relevant enough; ") == 3
    rows = answers(index, question)
    assert all(row["abstained"] and row["answer"] is None and row["n_visual_tokens"] == 0 for row in rows)
    assert all(row["relevance"] == row["evidence"][0]["score"] < row["abstain_below"] == 2 for row in rows)
    assert not any(row["question_truncated"] for row in rows)
    assert job("verify", "--index", str(index)).code == 0
    best = max(rows, key=lambda row: float(row["relevance"]))
    ended = ask(index, "--question", question, "--top", "1", *ALWAYS)
    assert ended.code == 0, ended.err
    after = {row["video_id"]: row["abstained"] for row in answers(index, question)}
    assert after == {row["video_id"]: row["video_id"] != best["video_id"] for row in rows}


@pytest.mark.nightly
def test_what_comes_later_is_asked_and_what_changed_is_not_answered_from(tmp_path: Path) -> None:
    """A standing question reaches a new video; a file that changed since it was indexed is an error, and no answer."""
    archive, index = tmp_path / "archive", tmp_path / "index"
    render_video(archive / "first.mp4", 6, seed=8)
    flags = ["--question", QUESTION, "--max-new-tokens", "4"]
    assert index_job([archive], index, *flags).code == 0
    question = "Is it dark?"
    assert ask(index, "--question", question, "--scope", "clip", "--standing", *ALWAYS).code == 0
    render_video(archive / "later.mp4", 6, seed=9)
    ended = index_job([archive], index, *flags)
    assert ended.code == 0, ended.err
    assert "1 new, 1 unchanged" in ended.err
    assert {row["clip_id"] for row in answers(index, question)} == {key[0] for key in records(index, "clips")}
    assert job("verify", "--index", str(index)).code == 0

    render_video(archive / "first.mp4", 9, seed=10)
    ended = ask(index, "--question", "What?", *ALWAYS)
    assert ended.code == 0, ended.err
    assert "1 videos could not be read" in ended.out
    names = {row["video_id"]: row["name"] for row in records(index, "videos").values()}
    assert [names[row["video_id"]] for row in answers(index, "What?")] == ["later.mp4"]
    assert job("verify", "--index", str(index)).code == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "no question given"),
        (["--question", " "], "empty question"),
        (["--question", "x", "--top", "0"], "--top 0"),
        (["--question", "x", "--where", "true); DELETE FROM answers; SELECT (true"], "--where"),
        (["--question", "x", "--where", "clip_index > 1"], "no column 'clip_index'"),
        (["--question", "x", "--standing", "--top", "3"], "--standing"),
        (["--questions", "/nowhere.txt"], "/nowhere.txt"),
        (["--question", "x", "--index", "/nowhere"], "is not an index"),
        (["--question", "x", "--model", "/nowhere"], "no such folder"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(indexed: Path, flags: list[str], message: str) -> None:
    before = files_of(indexed)
    ended = ask(indexed, *flags)
    assert ended.code == 2
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert files_of(indexed) == before


def test_questions_come_from_files(indexed: Path, tmp_path: Path) -> None:
    """Read by the same function the job uses; a bad file names its line."""
    from jobs.ask import _questions_in
    from pipeline.errors import UsageError

    (tmp_path / "q.txt").write_text("One?\n\n Two? {a|b}\n")
    assert _questions_in(tmp_path / "q.txt") == ["One?", "Two? {a|b}"]
    (tmp_path / "q.csv").write_text('id,text,choices\n1,"Is it, now?",\n2,What colour?,red | green\n')
    assert _questions_in(tmp_path / "q.csv") == ["Is it, now?", "What colour? {red|green}"]
    (tmp_path / "bad.csv").write_text("id,text,choices\n7,What?,red\n")
    with pytest.raises(UsageError, match=r"id 7: choices \['red'\]"):
        _questions_in(tmp_path / "bad.csv")
    (tmp_path / "head.csv").write_text("question\nWhat?\n")
    with pytest.raises(UsageError, match="expected a header with id, text"):
        _questions_in(tmp_path / "head.csv")
