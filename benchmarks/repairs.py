"""Where AdaTP loses on the planted benchmark, and what repairs it: how fine segments are, no dedup, a larger budget.

python -m benchmarks.repairs [--items 480] [--save]

Drawn from the dev split, so that nothing here is chosen on the test items. Every row is one change to AdaTP as it ships
(tau_s of the builtin encoder, p = 1); beside rows of plain AdaTP stands `uniform` at their FLOPs, item by item.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from benchmarks.machine import RESULTS, describe
from pipeline.config import Thresholds
from pipeline.evaluation.bench import open_bench
from pipeline.evaluation.evaluate import Answer, Bench, evaluate
from pipeline.evaluation.verdict import judge
from pipeline.planted.items import Item, benchmark_items

CUTS_ALONE = 0.79
"""A tau_s in the gap between neighbours inside a scene and across a cut, where only cuts begin a segment."""
OTHERS = (CUTS_ALONE, 0.9, 0.95, 0.98, 0.9975)
"""Values of tau_s beside the builtin encoder's: neighbouring frames less alike than this start a segment."""


@dataclass(frozen=True)
class Change:
    """One row: AdaTP in the form `method`, at this tau_s and p."""

    what: str
    method: str
    tau_s: float
    p: float


def changes(tau_s: float) -> list[Change]:
    return [
        Change("as it ships", "adatp", tau_s, 1.0),
        Change("true segments", "adatp-truesegments", tau_s, 1.0),
        Change("no dedup", "adatp-global", tau_s, 1.0),
        Change("no dedup, p = 0.75", "adatp-global", tau_s, 0.75),
        *(Change(f"tau_s {other}", "adatp", other, 1.0) for other in OTHERS),
        Change("p = 2", "adatp", tau_s, 2.0),
        Change(f"p = 2, tau_s {CUTS_ALONE}", "adatp", CUTS_ALONE, 2.0),
    ]


def answers_to(bench: Bench, items: list[Item]) -> Iterator[tuple[Change, list[Answer]]]:
    """Each change with its answers and those of `none`; where it is plain AdaTP, also `uniform` at its FLOPs."""
    plain = list(evaluate(bench, items, ["none"], [1.0]))
    for change in changes(bench.thresholds.tau_s):
        there = replace(bench, thresholds=Thresholds(tau_s=change.tau_s, tau_t=bench.thresholds.tau_t))
        methods = [change.method, *(["uniform"] if change.method == "adatp" else [])]
        yield change, plain + list(evaluate(there, items, methods, [change.p]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=480, help="a multiple of twelve (default: 480)")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/repairs.json")
    args = parser.parse_args()
    bench = open_bench("builtin", "builtin")
    rows = []
    for change, answers in answers_to(bench, benchmark_items("dev", args.items)):
        verdict = judge(answers)
        for method in dict.fromkeys(answer.method for answer in answers if answer.method != "none"):
            scores = {s.type: s for s in verdict.scores if s.method == method}
            row = {
                "what": change.what,
                "method": method,
                "llm_flops_ratio": round(scores["all"].llm_flops_ratio, 3),
                "evidence_kept": round(scores["all"].evidence_kept, 3),
                "macro": round(scores["macro"].accuracy, 3),
                "none": round(verdict.score("none", 0.0, "macro").accuracy, 3),
            } | {type_: round(scores[type_].accuracy, 3) for type_ in verdict.gated}
            rows.append(row)
            print(json.dumps(row), flush=True)
    result = {"items": args.items, "split": "dev", "tau_s": bench.thresholds.tau_s, "rows": rows} | describe()
    if args.save:
        (RESULTS / "repairs.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
