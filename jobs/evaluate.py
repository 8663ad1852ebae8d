"""Accuracy against FLOPs on a benchmark whose truth is known, every method paired on the same items.

python -m jobs.evaluate --benchmark planted [--items 1200] [--methods none,adatp,fastv,random,uniform] [--p 1]
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from jobs.cli import Parser, run
from pipeline.errors import UsageError
from pipeline.planted.items import VERSIONS, benchmark_items
from pipeline.planted.questions import TWELVE

BENCHMARKS = ("planted",)


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m jobs.evaluate",
        description="Ask a benchmark's questions under each pruning method and compare the answers, paired.",
        allow_abbrev=False,
    )
    parser.add_argument("--benchmark", required=True, help=f"which benchmark: {', '.join(BENCHMARKS)}")
    parser.add_argument(
        "--set",
        default="still",
        choices=tuple(VERSIONS),
        help="planted clips of a camera that stands still, or of one that moves, with noise and a poor codec "
        "(default: still)",
    )
    parser.add_argument("--items", type=int, default=1200, help="questions, a twelfth of each type (default: 1200)")
    parser.add_argument(
        "--methods",
        default="none,adatp,fastv,random,uniform",
        help="comma-separated; also onsets, visionzip, dycoke, pyramiddrop, vidcom2, evs, echoprune, vcast, framedrop, "
        "adatp-none, adatp-segments, adatp-global, adatp-randomsegments, adatp-truesegments, and the audits blind, "
        "middle, ends, shuffled",
    )
    parser.add_argument(
        "--reference",
        default="adatp",
        help="the method whose measured FLOPs every other is given, item by item, where its ratio allows, and against "
        "which all are compared (default: adatp)",
    )
    parser.add_argument(
        "--margin", type=float, default=2.0, help="points of accuracy a non-inferior method may lose (default: 2)"
    )
    parser.add_argument("--p", default="1", help="comma-separated budgets of the paper's p (default: 1)")
    parser.add_argument("--split", default="test", choices=("dev", "test"), help="seeds to draw items from")
    parser.add_argument("--model", default="builtin", help="builtin, a local path or a hub id")
    parser.add_argument("--encoder", default="builtin", help="builtin, a local path or a hub id")
    parser.add_argument(
        "--output", type=Path, default=Path("build/evaluate"), help="folder for Parquet, JSON and plots"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return run(lambda: _evaluate(args))


def _evaluate(args: argparse.Namespace) -> int:
    if args.benchmark not in BENCHMARKS:
        raise UsageError(f"--benchmark {args.benchmark}: unknown; expected {', '.join(BENCHMARKS)}")
    if args.items <= 0 or args.items % len(TWELVE):
        raise UsageError(f"--items {args.items}: expected a positive multiple of {len(TWELVE)}, the types of question")
    ps = _budgets(args.p)
    if args.margin <= 0:
        raise UsageError(f"--margin {args.margin:g}: expected points above 0")
    methods = list(dict.fromkeys(["none", args.reference, *(name for name in args.methods.split(",") if name)]))
    from pipeline.evaluation.bench import open_bench, write_results  # after the cheap refusals: it loads torch
    from pipeline.evaluation.evaluate import AUDITS, check_methods, evaluate
    from pipeline.evaluation.verdict import judge, lines

    check_methods(methods)
    if args.reference in ("none", *AUDITS):
        raise UsageError(f"--reference {args.reference}: expected a method that prunes, such as adatp or onsets")
    bench = open_bench(args.model, args.encoder)
    began = time.perf_counter()
    answers = []
    for answer in evaluate(bench, benchmark_items(args.split, args.items, args.set), methods, ps, args.reference):
        answers.append(answer)
        if len(answers) % 600 == 0:
            print(f"{len(answers)} answers in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    verdict = judge(answers, args.reference, args.margin / 100)
    print("\n".join(lines(verdict)))
    written = write_results(args.output, answers, verdict)
    print("\n".join(f"wrote {path}" for path in written))
    summary = {
        "benchmark": VERSIONS[args.set],
        "split": args.split,
        "items": args.items,
        "model": args.model,
        "reference": args.reference,
        "seconds": round(time.perf_counter() - began, 1),
        "gated": verdict.gated,
        "accuracy": {f"{s.method}@{s.p:g}": round(s.accuracy, 4) for s in verdict.scores if s.type == "macro"},
        "llm_flops_ratio": {
            f"{s.method}@{s.p:g}": round(s.llm_flops_ratio, 4) for s in verdict.scores if s.type == "all"
        },
        "contrasts": [asdict(c) for c in verdict.contrasts],
        "lost": verdict.lost,
    }
    print(json.dumps(summary))
    return 0


def _budgets(text: str) -> list[float]:
    try:
        ps = [float(part) for part in text.split(",")]
    except ValueError:
        ps = []
    if not ps or not all(0 < p < float("inf") for p in ps):
        raise UsageError(f"--p {text}: expected numbers above 0, such as 1 or 2,1.5,1,0.5")
    return ps


if __name__ == "__main__":
    sys.exit(main())
