"""`python -m jobs.evaluate` on published layouts, as it is run: tables, lost videos, crashes, refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.evaluate import main
from tests.pipeline.public_benchmarks.fabricate import make
from tests.pipeline.public_benchmarks.test_rows import edit

ROOT = Path(__file__).parents[2]
TIMES = ["decode_ms", "vision_ms", "prefill_ms", "answer_ms"]


def evaluate(data: Path, output: Path, *flags: str) -> int:
    return main(["--data", str(data), "--output", str(output), "--model", "builtin", *flags])


def answers(output: Path) -> pa.Table:
    return pq.read_table(output / "answers.parquet").drop_columns(TIMES)


def table(output: Path) -> dict[str, Any]:
    """table.json without what a clock decides."""
    found = json.loads((output / "table.json").read_text())
    for row in found["rows"]:
        row.pop("prefill_ms")
    return dict(found)


def test_planted_items_score_the_same_through_videommes_layout(tmp_path: Path) -> None:
    """Item by item: the same frames, segments, prompts and likelihoods, whichever way they came."""
    few = ["--benchmark", "planted", "--items", "24"]
    assert main([*few, "--export", str(tmp_path / "data")]) == 0
    methods = ["--methods", "none,adatp,uniform"]
    assert main([*few, *methods, "--output", str(tmp_path / "planted")]) == 0
    through = ["--benchmark", "videomme", "--answer", "options", "--budget", "measured", *methods]
    assert evaluate(tmp_path / "data", tmp_path / "published", *through) == 0
    columns = ["item_id", "method", "p"]
    ours = pq.read_table(tmp_path / "published" / "answers.parquet").select(
        [*columns, "reply", "correct", "n_segments"]
    )
    theirs = pq.read_table(tmp_path / "planted" / "answers.parquet").select(
        [*columns, "given", "correct", "n_segments"]
    )
    order = [(name, "ascending") for name in columns]
    assert list(map(tuple, ours.sort_by(order).to_pydict().values())) == list(
        map(tuple, theirs.sort_by(order).to_pydict().values())
    )
    seen = pq.read_table(tmp_path / "published" / "answers.parquet").select(["video", "vision_ms"]).to_pylist()
    assert len({tuple(row.values()) for row in seen}) == 24, "vision is encoded once per video"


def test_lost_videos_and_odd_rows_are_listed_and_counted_or_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make("videomme", tmp_path / "data", 18)
    file = data / "videomme" / "test-00000-of-00001.parquet"

    def spoil(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rows[0]["options"] = rows[0]["options"][:3]
        rows[6]["videoID"] = "../../etc/passwd"
        rows[7]["question"] = "What does <video> mean?"
        return [row | {"extra": "x"} for row in rows]

    edit(file, spoil)
    videos = sorted((data / "data").iterdir())
    videos[0].unlink()  # three questions
    videos[1].write_bytes(videos[1].read_bytes()[:200])  # three more
    flags = ["--benchmark", "videomme", "--methods", "none,adatp", "--answer", "letters"]
    assert evaluate(data, tmp_path / "wrong", *flags) == 0
    printed = capsys.readouterr().out
    assert "unknown column extra" in printed
    found = table(tmp_path / "wrong")
    why = dict(found["lost"])
    assert len(why) == 7
    assert sum("missing video: data/v_-000a.mp4" in reason for reason in why.values()) == 3
    assert sum(reason.startswith(("NotAVideo", "NoFrames", "Refused", "DecodeCrashed")) for reason in why.values()) == 3
    assert "its path leaves the data folder" in why["003-1"]
    assert "003-2" not in why, "a question that spells a control token is plain text"
    assert len((tmp_path / "wrong" / "lost.txt").read_text().splitlines()) == 7
    assert all(reason in printed for reason in why.values())
    assert found["n_questions"] == 18
    assert found["rows"][0]["n"] == 18
    given = {(a["item_id"], a["method"]): a for a in answers(tmp_path / "wrong").to_pylist()}
    assert all(not given[item, "none"]["correct"] for item in why)
    assert evaluate(data, tmp_path / "exclude", *flags, "--missing", "exclude") == 0
    assert table(tmp_path / "exclude")["rows"][0]["n"] == 11
    # the row with three options lies on the video that is gone; where its video is there, it is asked and listed
    videos[0].write_bytes(videos[2].read_bytes())
    assert evaluate(data, tmp_path / "odd", *flags) == 0
    assert table(tmp_path / "odd")["odd"] == [["001-1", "3 options; expected 4; asked as it stands"]]


def test_killed_in_the_middle_the_same_command_gives_the_same_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make("nextqa", tmp_path / "data", 32)
    flags = ["--benchmark", "nextqa", "--data", str(data), "--model", "builtin", "--methods", "none,adatp,onsets"]
    command = [sys.executable, "-m", "jobs.evaluate", *flags, "--answer", "letters", "--output"]
    job = subprocess.Popen(
        [*command, str(tmp_path / "killed")], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    parts = tmp_path / "killed" / "parts"
    deadline = time.monotonic() + 120
    while len(list(parts.glob("*.parquet"))) < 2 and time.monotonic() < deadline:
        assert job.poll() is None
        time.sleep(0.005)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    done = {part.name: part.stat().st_mtime_ns for part in parts.glob("*.parquet")}
    assert 2 <= len(done) < 8
    (parts / "half.writing").write_bytes(b"left by the kill")
    capsys.readouterr()
    assert main([*flags, "--answer", "letters", "--output", str(tmp_path / "killed")]) == 0
    said = f"8 videos, {len(done)} of them answered before, {8 - len(done)} to ask"
    assert said in capsys.readouterr().err
    assert all((parts / name).stat().st_mtime_ns == at for name, at in done.items()), "what was done is not done again"
    assert not list(parts.glob("*.writing"))
    assert main([*flags, "--answer", "letters", "--output", str(tmp_path / "whole")]) == 0
    assert answers(tmp_path / "killed").equals(answers(tmp_path / "whole"))
    assert table(tmp_path / "killed") == table(tmp_path / "whole")


def test_a_changed_video_or_question_is_asked_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make("egoschema", tmp_path / "data", 3)
    flags = ["--benchmark", "egoschema", "--methods", "none", "--answer", "letters"]
    assert evaluate(data, tmp_path / "out", *flags) == 0
    videos = sorted((data / "videos").iterdir())
    videos[0].write_bytes(videos[1].read_bytes())
    edit(next(data.rglob("*.parquet")), lambda rows: [rows[0], rows[1] | {"question": "Why?"}, rows[2]])
    capsys.readouterr()
    assert evaluate(data, tmp_path / "out", *flags) == 0
    assert "3 videos, 1 of them answered before, 2 to ask" in capsys.readouterr().err
    assert evaluate(data, tmp_path / "out", *flags, "--harness", "2025") == 0
    assert "3 videos, 3 of them answered before, 0 to ask" in capsys.readouterr().err, "grading needs no model"


def test_a_preset_says_its_cost_before_it_looks_for_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--preset", "paper-table1", "--data", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "GPU hours" in said.out
    assert said.out.count("13 settings") == 9
    assert "no such folder" in said.err


def test_table_2_runs_on_the_builtin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("videomme", "mlvu", "longvideobench"):
        make(name, tmp_path / "data" / name, 3)
    flags = ["--preset", "paper-table2", "--answer", "letters"]
    assert evaluate(tmp_path / "data", tmp_path / "out", *flags) == 0
    printed = capsys.readouterr().out
    assert printed.index("GPU hours") < printed.index("score [95% interval]")
    assert "builtin adatp-segments p=1: mean of 3:" in printed
    assert "(45.85)" in printed, "the paper's average stands beside ours"
    methods = answers(tmp_path / "out" / "ov-0.5b" / "mlvu")["method"].to_pylist()
    assert list(dict.fromkeys(methods)) == ["none", "adatp-none", "adatp-segments", "adatp-global", "adatp"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--benchmark", "videomme"], "videomme needs --data"),
        (["--benchmark", "video-mme", "--data", "x"], "--benchmark video-mme: unknown; expected planted, videomme"),
        (["--data", "x"], "neither --benchmark nor --preset given"),
        (["--preset", "table9", "--data", "x"], "--preset table9: unknown; expected paper-table1"),
        (["--benchmark", "mlvu", "--data", "/nowhere"], "--data /nowhere: no such folder; expected the folder of MLVU"),
        (["--benchmark", "mlvu", "--data", "x", "--methods", "adpat"], "--methods adpat: unknown"),
        (["--benchmark", "mlvu", "--data", "x", "--budget", "paper", "--methods", "fastv"], "the paper runs no fastv"),
        (["--benchmark", "mlvu", "--data", "x", "--budget", "half"], "--budget half: unknown; expected p, measured"),
        (["--benchmark", "mlvu", "--data", "x", "--answer", "guess"], "--answer guess: unknown; expected generate"),
        (["--benchmark", "mlvu", "--data", "x", "--frames", "0"], "--frames 0: expected 1 to"),
        (["--benchmark", "mlvu", "--data", "x", "--items", "0"], "--items 0: expected at least 1"),
        (["--benchmark", "mlvu", "--data", "x", "--prompt-variant", "llava_vid"], "mlvu has none of that name"),
        (["--preset", "paper-table3", "--data", "x", "--model", "builtin"], "--preset paper-table3 --model builtin"),
    ],
)
def test_misuse_is_one_line_and_exit_code_2(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if "--preset" not in flags:
        flags = [*flags, "--model", "builtin"]
    p = ["--p", "0.7"] if "paper" in flags else []
    assert main([*flags, *p, "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert len(error.splitlines()) == 1


@pytest.mark.nightly
def test_workers_of_ray_give_the_same_answers(tmp_path: Path) -> None:
    data = make("mvbench", tmp_path / "data", 20)
    flags = ["--benchmark", "mvbench", "--methods", "none,adatp,random", "--answer", "letters"]
    assert evaluate(data, tmp_path / "here", *flags) == 0
    assert evaluate(data, tmp_path / "ray", *flags, "--address", "local") == 0
    assert answers(tmp_path / "here").equals(answers(tmp_path / "ray"))
