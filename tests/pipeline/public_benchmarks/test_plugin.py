"""lmms-eval runs the plug-in end to end, offline, on made-up data: replies and scores are those of `jobs.evaluate`.

Nightly: it needs lmms-eval's own environment (`make lmms`). The model is the builtin with some of its words renamed to
letters, so that it answers with letters, brackets and words of its own.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.evaluate import main
from pipeline.models.checkpoints import BUILTIN
from pipeline.public_benchmarks.registry import BENCHMARKS
from tests.pipeline.public_benchmarks.fabricate import make
from tests.pipeline.public_benchmarks.lmms import lmms_environment, lmms_python

ROOT = Path(__file__).parents[3]
RENAMED = {
    "and": "A", "a": "B", "the": "(C)", "red": "D.", "then": "E", "star": "Yes", "green": "C", "small": "(A)",
    "bar": "no", ",": "B.",
}  # fmt: skip
QUICK = "import time; time.sleep = lambda s: None; from lmms_eval.__main__ import cli_evaluate; cli_evaluate()"
"""TempCompass waits for a judge on the network, which is not there: ten tries of a second each."""


def lettered_model(folder: Path) -> Path:
    shutil.copytree(BUILTIN / "model", folder)
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {RENAMED.get(word, word): place for word, place in vocabulary.items()}
    file.write_text(json.dumps(tokenizer))
    return folder


def run_lmms(python: Path, command: list[str], home: Path) -> None:
    done = subprocess.run(
        [str(python), *command], cwd=ROOT, env=os.environ | lmms_environment(home), capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    assert b"Error during evaluation" not in done.stdout + done.stderr, (done.stdout + done.stderr).decode()[-3000:]


def samples(output: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """(task, doc_id) -> what lmms-eval logged of the item."""
    found = {}
    for file in output.rglob("*_samples_*_local.jsonl"):
        task = file.stem.split("_samples_")[1].removesuffix("_local")
        for line in file.read_text().splitlines():
            record = json.loads(line)
            found[task, int(record["doc_id"])] = record
    return found


@pytest.mark.nightly
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("method", ["onsets", "adatp"])
def test_the_plugin_gives_the_answers_of_jobs_evaluate(method: str, tmp_path: Path) -> None:
    python, model = lmms_python(), lettered_model(tmp_path / "model")
    tasks, names = tmp_path / "tasks", list(BENCHMARKS)
    for name in names:
        data = make(name, tmp_path / name, 12)
        flags = ["--benchmark", name, "--data", str(data)]
        run_lmms(python, ["-m", "jobs.evaluate", *flags, "--lmms-tasks", str(tasks)], tmp_path)
        asked = ["--model", str(model), "--encoder", "builtin", "--methods", f"none,{method}", "--p", "1"]
        assert main([*flags, *asked, "--output", str(tmp_path / "ours" / name)]) == 0
    shutil.move(tasks / "hf", tmp_path / "hf")
    every = ",".join(sorted(file.stem for file in tasks.glob("*.yaml")))
    arguments = f"model={model},encoder=builtin,method={method},p=1,log={tmp_path / 'log' / 'items'}"
    run_lmms(
        python,
        ["-c", QUICK, "--model", "adatp", "--model_args", arguments, "--tasks", every,
         "--include_path", str(tasks), "--device", "cpu", "--log_samples", "--output_path", str(tmp_path / "theirs")],
        tmp_path,
    )  # fmt: skip
    theirs, replies, scores = samples(tmp_path / "theirs"), set(), {}
    for name in names:
        answers = pq.read_table(tmp_path / "ours" / name / "answers.parquet").to_pylist()
        own = [answer for answer in answers if answer["method"] == method]
        assert len(own) >= 12
        for answer in own:
            record = theirs.pop((answer["task"], answer["row"]))
            assert record["filtered_resps"] == [answer["reply"]] or record["filtered_resps"] == answer["reply"]
            assert record["input"] == answer["prompt"]
            replies.add(answer["reply"])
        scores[name] = json.loads((tmp_path / "ours" / name / "table.json").read_text())["rows"][1]["score"]
    assert not theirs, "lmms-eval asked nothing that we did not"
    assert len(replies) > 5
    result = json.loads(next((tmp_path / "theirs").rglob("*_results.json")).read_text())["results"]
    assert result["videomme_local"]["videomme_perception_score,none"] == pytest.approx(100 * scores["videomme"])
    assert result["mlvu_dev_local"]["mlvu_percetion_score,none"] == pytest.approx(100 * scores["mlvu"])
    of_mvbench = [v["mvbench_accuracy,none"] for task, v in result.items() if task.startswith("mvbench_")]
    assert sum(of_mvbench) / 20 == pytest.approx(100 * scores["mvbench"])
    of_tempcompass = [v["avg_accuracy,none"] for task, v in result.items() if task.startswith("tempcompass_")]
    assert sum(of_tempcompass) / 3 == pytest.approx(100 * scores["tempcompass"])
    logged = pq.read_table(next((tmp_path / "log").glob("items*.parquet")))
    assert logged.num_rows >= 100
    assert all(0 < ratio < 0.9 for ratio in logged["paper_flops_ratio"].to_pylist())


@pytest.mark.nightly
def test_an_unreadable_video_is_an_empty_text_never_a_sentence(tmp_path: Path) -> None:
    """A parser could read a letter from an error message; it cannot from nothing."""
    data = make("nextqa", tmp_path / "data", 4)
    next((data / "NExTVideo").iterdir()).write_bytes(b"Bad file: answer (A)")
    python, tasks = lmms_python(), tmp_path / "tasks"
    flags = ["--benchmark", "nextqa", "--data", str(data), "--lmms-tasks", str(tasks)]
    run_lmms(python, ["-m", "jobs.evaluate", *flags], tmp_path)
    shutil.move(tasks / "hf", tmp_path / "hf")
    arguments = ["eval", "--model", "adatp", "--model_args", "model=builtin", "--tasks", "nextqa_mc_test_local"]
    more = ["--include_path", str(tasks), "--device", "cpu", "--log_samples", "--output_path", str(tmp_path / "out")]
    run_lmms(python, ["-m", "lmms_eval", *arguments, *more], tmp_path)
    assert {str(record["filtered_resps"]) for record in samples(tmp_path / "out").values()} <= {"", "['']"}
