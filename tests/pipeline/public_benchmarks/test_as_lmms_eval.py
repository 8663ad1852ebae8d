"""Our prompts, extraction and scores are those of lmms-eval 0.7.3, on made-up rows with nasty replies.

`expected.json` is what lmms-eval's own functions said (derive.py). The nightly test asks them again, and about rows of
another seed too, in lmms-eval's own environment (`make lmms`).
"""

import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.public_benchmarks.answers import base_answer
from pipeline.public_benchmarks.registry import BENCHMARKS
from pipeline.public_benchmarks.settings import NONE
from pipeline.public_benchmarks.table import judge
from tests.pipeline.public_benchmarks.derive import REPLIES_PER_ROW, VARIANTS, short
from tests.pipeline.public_benchmarks.fabricate import make, replies
from tests.pipeline.public_benchmarks.lmms import lmms_environment, lmms_python

EXPECTED = Path(__file__).with_name("expected.json")
ROOT = Path(__file__).parents[3]


def check(benchmark: str, expected: dict[str, Any], seed: int, n_rows: int, folder: Path) -> None:
    """Every row: prompts, and each reply's grade; then the score over the first reply of all rows."""
    made = BENCHMARKS[benchmark]
    data = make(benchmark, folder / benchmark, n_rows, seed, with_videos=False)
    by_variant = {v: made.load(data, v).questions for v in VARIANTS.get(benchmark, ("default",))}
    questions, rng, answers = by_variant["default"], random.Random(seed), []
    assert len(questions) == len(expected["items"]) >= 200
    draws = benchmark in ("longvideobench", "egoschema", "nextqa", "tempcompass")
    for place, (question, item) in enumerate(zip(questions, expected["items"], strict=True)):
        assert not question.fault, question
        for variant, prompt in item["prompts"].items():
            assert short(by_variant[variant][place].prompt) == prompt, (question.item_id, variant)
        marks = item["graded"].split()
        for turn, (reply, mark) in enumerate(zip(replies(rng, question, REPLIES_PER_ROW), marks, strict=True)):
            grade = made.grade(question, reply, "2026")
            assert grade.correct == (mark[0] == "1"), (benchmark, question, reply, grade)
            assert not draws or grade.is_parsed == (mark[1] == "0"), (benchmark, question, reply, grade)
            if turn == 0:
                answers.append(base_answer(benchmark, question, NONE, reply, grade))
    verdict = judge(made, "builtin", answers, "wrong")
    assert verdict.rows[0].score == pytest.approx(expected["score"], abs=5.1e-6)  # one of them is rounded to 5 places


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_prompts_extraction_and_scores(benchmark: str, tmp_path: Path) -> None:
    record = json.loads(EXPECTED.read_text())
    check(benchmark, record["lmms_eval"][benchmark], record["seed"], record["rows"], tmp_path)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [7, 20251125])
def test_lmms_eval_says_so_itself(seed: int, tmp_path: Path) -> None:
    python = lmms_python()
    output = tmp_path / "derived.json"
    command = [
        str(python),
        "-m",
        "tests.pipeline.public_benchmarks.derive",
        "--seed",
        str(seed),
        "--output",
        str(output),
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=os.environ | lmms_environment(tmp_path))
    record = json.loads(output.read_text())
    if seed == 7:
        assert record == json.loads(EXPECTED.read_text()), "the committed expectations are not lmms-eval's"
    for benchmark in BENCHMARKS:
        check(benchmark, record["lmms_eval"][benchmark], seed, record["rows"], tmp_path)
