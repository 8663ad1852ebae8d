"""Accuracy against FLOPs on a benchmark, every method paired on the same items.

python -m jobs.evaluate --benchmark planted [--items 1200] [--methods none,adatp,fastv,random,uniform] [--p 1]
python -m jobs.evaluate --benchmark videomme --data DIR --model MODEL --methods none,adatp,onsets --p 2,1.5,1
python -m jobs.evaluate --preset paper-table1 --data DIR
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from jobs.cli import Parser, run
from pipeline.errors import UsageError
from pipeline.planted.items import VERSIONS, benchmark_items
from pipeline.planted.questions import TWELVE

PUBLISHED = ("videomme", "mlvu", "longvideobench", "mvbench", "egoschema", "nextqa", "tempcompass")
BENCHMARKS = ("planted", *PUBLISHED)


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m jobs.evaluate",
        description="Ask a benchmark's questions under each pruning method and compare the answers, paired.",
        allow_abbrev=False,
    )
    parser.add_argument("--benchmark", help=f"which benchmark: {', '.join(BENCHMARKS)}")
    parser.add_argument(
        "--set",
        default="still",
        choices=tuple(VERSIONS),
        help="planted clips of a camera that stands still, or of one that moves, with noise and a poor codec "
        "(default: still)",
    )
    parser.add_argument(
        "--items",
        type=int,
        help="planted: questions, a twelfth of each type (default: 1200); a published benchmark: its first so many "
        "(default: all)",
    )
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
        "--margin",
        type=float,
        help="points of accuracy a non-inferior method may lose (default: planted 2, published 1)",
    )
    parser.add_argument(
        "--captions",
        type=int,
        default=0,
        help="clips that are also captioned under each method and graded by the facts stated (default: 0)",
    )
    parser.add_argument("--p", default="1", help="comma-separated budgets of the paper's p (default: 1)")
    parser.add_argument("--split", default="test", choices=("dev", "test"), help="seeds to draw items from")
    parser.add_argument(
        "--model",
        help="builtin, a local path or a hub id (default: builtin for planted, else OneVision-0.5B, or the preset's)",
    )
    parser.add_argument(
        "--encoder", help="builtin, a local path or a hub id (default: builtin's own, else the paper's)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("build/evaluate"), help="folder for Parquet, JSON and plots"
    )
    parser.add_argument(
        "--export", type=Path, help="planted: write its items into this folder in VideoMME's published layout, and stop"
    )
    _add_published(parser.add_argument_group("published benchmarks"))
    return parser


def _add_published(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--data", type=Path, help="folder of the benchmark's files; of a preset: one such folder each")
    group.add_argument(
        "--preset", help="a table of the paper as published: paper-table1 to paper-table4; its cost is printed first"
    )
    group.add_argument(
        "--budget",
        default="p",
        help="what methods other than AdaTP may keep at p: p (AdaTP's schedule), measured (what --reference kept of "
        "the same item) or paper (the paper's own settings) (default: p)",
    )
    group.add_argument(
        "--answer",
        default="generate",
        help="generate (lmms-eval's prompt and extraction), letters (that prompt, likeliest letter) or options (bare "
        "question, likeliest option text) (default: generate)",
    )
    group.add_argument(
        "--harness",
        default="2026",
        choices=("2026", "2025"),
        help="extraction rules: lmms-eval from 0.7.2 on, or before, as the paper used (default: 2026)",
    )
    group.add_argument(
        "--prompt-variant",
        help="lmms-eval's prompt for a kind of model: default, llava_vid, qwen3_vl (default: the model's)",
    )
    group.add_argument("--frames", type=int, help="frames per video (default: 32; LLaVA-Video 20)")
    group.add_argument(
        "--missing",
        default="wrong",
        choices=("wrong", "exclude"),
        help="questions that cannot be asked (no video, damaged, broken row) are listed, and wrong or left out "
        "(default: wrong)",
    )
    group.add_argument("--thresholds", type=Path, help="JSON with the encoder's tau_s and tau_t (jobs.calibrate)")
    group.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    group.add_argument(
        "--address",
        help="run on Ray workers: local (a Ray of its own on this machine), auto, or HOST:PORT (default: this process)",
    )
    group.add_argument("--shared-filesystem", action="store_true", help="every node of the cluster sees --data")
    group.add_argument(
        "--lmms-tasks",
        type=Path,
        help="write task files for lmms-eval into this folder, so that it reads --data offline, and stop",
    )
    group.add_argument("--dry-run", action="store_true", help="print what there is to ask and its cost, and stop")


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return run(lambda: _evaluate(args))


def _evaluate(args: argparse.Namespace) -> int:
    if args.benchmark is None and args.preset is None:
        raise UsageError(f"neither --benchmark nor --preset given; expected a benchmark of {', '.join(BENCHMARKS)}")
    if args.benchmark not in (None, *BENCHMARKS):
        raise UsageError(f"--benchmark {args.benchmark}: unknown; expected {', '.join(BENCHMARKS)}")
    return _planted(args) if args.benchmark == "planted" and args.preset is None else _published(args)


def _published(args: argparse.Namespace) -> int:
    """A published benchmark, or a table of the paper."""
    if args.data is None:
        what = args.benchmark or args.preset
        raise UsageError(f"{what} needs --data, the folder of its files (docs/reproduce.md says where they come from)")
    ps, margin = tuple(_budgets(args.p)), 1.0 if args.margin is None else args.margin
    if margin <= 0:
        raise UsageError(f"--margin {margin:g}: expected points above 0")
    if args.lmms_tasks is not None:
        return _lmms_tasks(args)
    from pipeline.execution.pools import ClusterOptions
    from pipeline.public_benchmarks.command import Options, run_public  # it loads torch

    address = args.address or os.environ.get("RAY_ADDRESS")
    cluster = None
    if address is not None:
        cluster = ClusterOptions(None if address == "local" else address, shared_filesystem=args.shared_filesystem)
    options = Options(
        benchmark=args.benchmark,
        preset=args.preset,
        data=args.data,
        output=args.output,
        model=args.model,
        encoder=args.encoder,
        thresholds=args.thresholds,
        methods=args.methods,
        ps=ps,
        budget=args.budget,
        reference=args.reference,
        how=args.answer,
        harness=args.harness,
        variant=args.prompt_variant,
        frames=args.frames,
        missing=args.missing,
        device=args.device,
        cluster=cluster,
        items=args.items,
        margin=margin / 100,
        dry_run=args.dry_run,
    )
    return run_public(options, show=print, say=lambda text: print(text, file=sys.stderr))


def _lmms_tasks(args: argparse.Namespace) -> int:
    if args.benchmark is None:
        raise UsageError("--lmms-tasks needs --benchmark: task files are written for one benchmark at a time")
    from pipeline.lmms.tasks import write_tasks

    names = write_tasks(args.benchmark, args.data, args.lmms_tasks, args.prompt_variant == "llava_vid")
    print(f"wrote {len(names)} task files; run where lmms-eval is installed:")
    print(
        f"HF_HOME={args.lmms_tasks.absolute() / 'hf'} HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 python -m lmms_eval eval "
        f"--model adatp --model_args model={args.model or 'MODEL'},method=adatp,p=1 --tasks {','.join(names)} "
        f"--include_path {args.lmms_tasks.absolute()} --log_samples --output_path OUTPUT"
    )
    return 0


def _planted(args: argparse.Namespace) -> int:
    args.items = 1200 if args.items is None else args.items
    args.model, args.encoder = args.model or "builtin", args.encoder or "builtin"
    args.margin = 2.0 if args.margin is None else args.margin
    if args.items <= 0 or args.items % len(TWELVE):
        raise UsageError(f"--items {args.items}: expected a positive multiple of {len(TWELVE)}, the types of question")
    if args.export is not None:
        from pipeline.planted.as_videomme import write_as_videomme

        print(f"wrote {write_as_videomme(args.export, benchmark_items(args.split, args.items, args.set))}")
        return 0
    ps = _budgets(args.p)
    if not 0 <= args.captions <= args.items:
        raise UsageError(f"--captions {args.captions}: expected 0 to {args.items}, the clips there are")
    if args.margin <= 0:
        raise UsageError(f"--margin {args.margin:g}: expected points above 0")
    methods = list(dict.fromkeys(["none", args.reference, *(name for name in args.methods.split(",") if name)]))
    from pipeline.evaluation.bench import open_bench, write_results  # after the cheap refusals: it loads torch
    from pipeline.evaluation.captions import caption_all, caption_lines, score_captions
    from pipeline.evaluation.evaluate import AUDITS, check_methods, evaluate
    from pipeline.evaluation.verdict import judge, lines

    check_methods(methods)
    if args.reference in ("none", *AUDITS):
        raise UsageError(f"--reference {args.reference}: expected a method that prunes, such as adatp or onsets")
    bench = open_bench(args.model, args.encoder)
    began = time.perf_counter()
    answers = []
    items = benchmark_items(args.split, args.items, args.set)
    for answer in evaluate(bench, items, methods, ps, args.reference):
        answers.append(answer)
        if len(answers) % 600 == 0:
            print(f"{len(answers)} answers in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    verdict = judge(answers, args.reference, args.margin / 100)
    chosen = [items[i * len(items) // args.captions] for i in range(args.captions)]
    captions = list(caption_all(bench, chosen, methods, ps, args.reference))
    told = score_captions(captions, args.reference) if captions else []
    print("\n".join([*lines(verdict), *caption_lines(told, args.reference)]))
    about = {"benchmark": VERSIONS[args.set], "split": args.split, "items": args.items, "model": args.model}
    written = write_results(args.output, answers, verdict, captions, about)
    print("\n".join(f"wrote {path}" for path in written))
    summary = {
        **about,
        "reference": args.reference,
        "seconds": round(time.perf_counter() - began, 1),
        "gated": verdict.gated,
        "accuracy": {f"{s.method}@{s.p:g}": round(s.accuracy, 4) for s in verdict.scores if s.type == "macro"},
        "llm_flops_ratio": {
            f"{s.method}@{s.p:g}": round(s.llm_flops_ratio, 4) for s in verdict.scores if s.type == "all"
        },
        "captions": {f"{s.method}@{s.p:g}": round(s.facts_right, 4) for s in told},
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
