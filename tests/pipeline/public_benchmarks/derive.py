"""What lmms-eval's own functions say of made-up rows: prompts, what they read from replies, and scores, as JSON.

    .lmms/bin/python -m tests.pipeline.public_benchmarks.derive --seed 7 --rows 240 --output expected.json

Runs in an environment that has lmms-eval 0.7.3 (`make lmms`). The committed `expected.json` was made by this script;
`make nightly` makes it again, and does the same for rows that nobody has seen.
"""

import argparse
import hashlib
import importlib
import json
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import yaml

from pipeline.public_benchmarks.benchmark import Question
from pipeline.public_benchmarks.extraction import drawn
from pipeline.public_benchmarks.registry import BENCHMARKS
from tests.pipeline.public_benchmarks.fabricate import make, replies

REPLIES_PER_ROW = 4


def derive(benchmark: str, seed: int, n_rows: int) -> dict[str, Any]:
    """Everything lmms-eval says of one fabricated benchmark.

    `graded` has two digits per reply: whether it is right, and whether lmms-eval found no answer in it and drew one.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = make(benchmark, Path(temporary), n_rows, seed, with_videos=False)
        questions = BENCHMARKS[benchmark].load(folder, "default").questions
        rows = raw_rows(benchmark, folder)
    utils = importlib.import_module(f"lmms_eval.tasks.{benchmark}.utils")
    rng, found, said = random.Random(seed), [], []
    is_drawn = [False]
    asked: list[Question] = []

    def draw(letters: list[str]) -> str:
        is_drawn[0] = True
        return drawn(asked[-1].item_id, "".join(letters))

    utils.random = SimpleNamespace(choice=draw, uniform=random.uniform)
    if benchmark == "tempcompass":
        utils.get_eval_result = lambda prompt: (is_drawn.__setitem__(0, True), (None, 0))[1]
    ways = WAYS[benchmark]
    for question in questions:
        asked.append(question)
        row = rows[question.task][question.row]
        prompts = {
            variant: ways.prompt(utils, row, question, variant) for variant in VARIANTS.get(benchmark, ("default",))
        }
        graded = []
        for place, reply in enumerate(replies(rng, question, REPLIES_PER_ROW)):
            is_drawn[0] = False
            result = ways.process(utils, row, question, reply)
            graded.append(f"{ways.is_right(result, question):d}{is_drawn[0]:d}")
            if place == 0:
                said.append((question.task, result))
        found.append(
            {"item": question.item_id, "prompts": {k: short(v) for k, v in prompts.items()}, "graded": " ".join(graded)}
        )
    return {"items": found, "score": ways.score(utils, said)}


def short(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()[:12]


def raw_rows(benchmark: str, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Task -> rows as `datasets` would hand them to lmms-eval."""
    if benchmark == "mvbench":
        return {f"mvbench_{file.stem}": json.loads(file.read_text()) for file in (folder / "json").glob("*.json")}
    if benchmark == "tempcompass":
        names = {"multi-choice": "multi_choice"}
        return {
            f"tempcompass_{names.get(file.parent.name, file.parent.name)}": pq.read_table(file).to_pylist()
            for file in folder.glob("*/test-*.parquet")
        }
    file = next(folder.rglob("*.parquet"))
    name = {"mlvu": "mlvu_dev", "longvideobench": "longvideobench_val_v", "egoschema": "egoschema_subset"}
    return {
        name.get(benchmark, "nextqa_mc_test" if benchmark == "nextqa" else benchmark): pq.read_table(file).to_pylist()
    }


class Ways:
    """How one benchmark's functions are called, and what of their results says right or wrong."""

    def __init__(
        self, yaml_name: str, prompt: str, process: str, is_right: Callable[..., bool], score: Callable[..., float]
    ):
        self.yaml_name, self.prompt_name, self.process_name = yaml_name, prompt, process
        self.is_right, self.score = is_right, score

    def prompt(self, utils: Any, row: dict[str, Any], question: Question, variant: str) -> str:
        name = self.yaml_name.format(task=question.task, short=question.task.removeprefix("tempcompass_"))
        config = _yaml(Path(utils.__file__).parent / name)
        kwargs = config.get("lmms_eval_specific_kwargs", {}).get(variant)
        function = getattr(utils, self.prompt_name.format(short=question.task.removeprefix("tempcompass_")))
        return str(function(row, kwargs) if kwargs is not None else function(row))

    def process(self, utils: Any, row: dict[str, Any], question: Question, reply: str) -> Any:
        return getattr(utils, self.process_name.format(short=question.task.removeprefix("tempcompass_")))(row, [reply])


def _yaml(path: Path) -> dict[str, Any]:
    text = path.read_text()
    config = yaml.safe_load("\n".join(line for line in text.splitlines() if "!function" not in line)) or {}
    included = [line.split(":")[1].strip() for line in text.splitlines() if line.startswith("include:")]
    return (_yaml(path.parent / included[0]) if included else {}) | config


def _mean_of_tasks(score: Callable[[list[Any]], float], said: list[tuple[str, Any]]) -> float:
    by_task: dict[str, list[Any]] = {}
    for task, result in said:
        by_task.setdefault(task, []).append(result)
    return sum(score(results) for results in by_task.values()) / len(by_task)


VARIANTS = {"videomme": ("default", "llava_vid", "qwen3_vl")}
WAYS = {
    "videomme": Ways(
        "videomme.yaml", "videomme_doc_to_text", "videomme_process_results",
        lambda r, q: r["videomme_perception_score"]["pred_answer"] == r["videomme_perception_score"]["answer"],
        lambda u, said: u.videomme_aggregate_results([r["videomme_perception_score"] for _, r in said]) / 100,
    ),
    "mlvu": Ways(
        "mlvu_dev.yaml", "mlvu_doc_to_text", "mlvu_process_results",
        lambda r, q: r["mlvu_percetion_score"]["pred_answer"] == r["mlvu_percetion_score"]["answer"],
        lambda u, said: u.mlvu_aggregate_results_dev([r["mlvu_percetion_score"] for _, r in said]) / 100,
    ),
    "longvideobench": Ways(
        "longvideobench_val_v.yaml", "longvideobench_doc_to_text", "longvideobench_process_results",
        lambda r, q: r["lvb_acc"]["parsed_pred"] == r["lvb_acc"]["answer"],
        lambda u, said: u.longvideobench_aggregate_results([r["lvb_acc"] for _, r in said]),
    ),
    "mvbench": Ways(
        "{task}.yaml", "mvbench_doc_to_text", "mvbench_process_results",
        lambda r, q: bool(r["mvbench_accuracy"]["score"]),
        lambda u, said: _mean_of_tasks(
            lambda results: u.mvbench_aggregate_results([r["mvbench_accuracy"] for r in results]) / 100, said
        ),
    ),
    "egoschema": Ways(
        "egoschema_subset.yaml", "egoschema_doc_to_text", "egoschema_process_results_generation",
        lambda r, q: str(r["score"]["pred"]) == str(r["score"]["ground_truth"]),
        lambda u, said: u.egoschema_aggregate_score([r["score"] for _, r in said], None),
    ),
    "nextqa": Ways(
        "nextqa_mc_test.yaml", "nextqa_doc_to_text_mc", "nextqa_mc_process_results",
        lambda r, q: bool(r["exact_match"]),
        lambda u, said: sum(r["exact_match"] for _, r in said) / len(said),
    ),
    "tempcompass": Ways(
        "_default_template_yaml", "tempcompass_doc_to_text_{short}", "tempcompass_process_results_{short}",
        lambda r, q: r["avg_accuracy"]["rating"] == 1,
        lambda u, said: _mean_of_tasks(
            lambda results: u.tempcompass_aggregate_rating([r["avg_accuracy"] for r in results], None) / 100, said
        ),
    ),
}  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--rows", type=int, default=240)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    os.environ.setdefault("HF_HOME", tempfile.gettempdir())
    expected = {name: derive(name, args.seed, args.rows) for name in WAYS}
    args.output.write_text(
        json.dumps({"seed": args.seed, "rows": args.rows, "lmms_eval": expected}, ensure_ascii=False)
    )
