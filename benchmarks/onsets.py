"""The open choices of the method `onsets`, and what AdaTP and others do beside it, decided on dev items.

    python -m benchmarks.onsets choices [--items 960] [--set still] [--save]
    python -m benchmarks.onsets tau_s

Only types of question that the model answers without pruning enter (the gate). Every row is paired with `onsets` as it
ships, at p = 1 and its own cost; `minus_onsets` is its macro accuracy minus that, with the 95% interval.
- choices: K, a floor under theta, budgets by segment or by relevance, quotas at the cuts.
- tau_s: AdaTP with segments cut at other similarities of neighbouring frames; onsets has no such threshold.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from adatp.debias import debiased_ratios, quotas, top_of_each_segment
from adatp.methods import METHODS
from adatp.onsets import Onsets, onsets_keep, scheduled
from adatp.plan import Clip, Cut, Method, Plan
from adatp.schedule import DEFAULT_START, budgets, default_end
from adatp.segments import segment_of_frame
from benchmarks.machine import RESULTS, describe
from pipeline.config import Thresholds
from pipeline.evaluation.bench import open_bench
from pipeline.evaluation.evaluate import Answer, Bench, evaluate
from pipeline.evaluation.verdict import judge
from pipeline.planted.items import Item, benchmark_items

TAU_S = (0.79, 0.9, 0.95, 0.98, 0.9923, 0.9975)


@dataclass(frozen=True)
class SegmentBudgets:
    """Onsets sought in each segment by itself, whose budget goes by length, or by Eq. 4-5 of AdaTP."""

    by_relevance: bool

    def plan(self, clip: Clip) -> Plan:
        counts = budgets(clip.n_visual, clip.n_layers, clip.p, DEFAULT_START, default_end(clip.n_layers))
        lengths, relevance = clip.segments or (clip.n_frames,), clip.relevance or ()
        significant = [self.by_relevance and score > 0.05 for score in relevance] or [False] * len(lengths)
        n_in = sum(length for length, is_in in zip(lengths, significant, strict=True) if is_in)
        r1, r2 = debiased_ratios(clip.n_frames, n_in, counts[DEFAULT_START] / clip.n_visual, 2.2, 0.75)
        c = clip.visual.tokens_per_frame
        quota = quotas(lengths, [r1 if is_in else r2 for is_in in significant], c)
        first, parts = 0, []
        for length, budget in zip(lengths, quota, strict=True):
            own = clip.visual.tokens[first : first + length]
            if budget:
                parts.append(first * c + onsets_keep(own, budget, Onsets().refresh))
            first += length
        return scheduled(clip, torch.cat(parts), counts)


@dataclass(frozen=True)
class QuotaCuts:
    """Onsets, and at the cuts each segment keeps its share of the tokens alive instead of one pool for the clip."""

    def plan(self, clip: Clip) -> Plan:
        counts = budgets(clip.n_visual, clip.n_layers, clip.p, DEFAULT_START, default_end(clip.n_layers))
        plan = Onsets().plan(clip)
        segment = segment_of_frame(clip.segments or (clip.n_frames,))
        c = clip.visual.tokens_per_frame

        def select(budget: int, origin: Tensor, scores: Tensor) -> Tensor:
            of = segment[origin // c]
            alive = torch.bincount(of, minlength=int(segment.max()) + 1).tolist()
            quota = quotas(alive, [budget / len(origin)] * len(alive), 1)
            walk, chosen = top_of_each_segment(scores, of, torch.tensor(quota))
            return walk[chosen].sort().values

        cuts = tuple(Cut(cut.layer, partial(select, counts[cut.layer]), rows="text") for cut in plan.cuts)
        return replace(plan, cuts=cuts)


CHOICES: dict[str, Method] = {
    "onsets": METHODS["onsets"],
    "K=4": Onsets(refresh=4),
    "K=8": Onsets(refresh=8),
    "theta at least 0.3": Onsets(theta_floor=0.3),
    "theta at least 0.76": Onsets(theta_floor=0.76),
    "budget by segment": SegmentBudgets(by_relevance=False),
    "budget by relevance": SegmentBudgets(by_relevance=True),
    "quotas at the cuts": QuotaCuts(),
}


def gated_items(bench: Bench, items: Sequence[Item]) -> tuple[list[Item], list[Answer]]:
    """Items of the types that pass the gate, and the answers of `none` to them."""
    plain = list(evaluate(bench, items, ["none"], []))
    gated = judge(plain).gated
    return [i for i in items if i.question.type in gated], [a for a in plain if a.type in gated]


def rows_of_choices(bench: Bench, items: Sequence[Item], ps: Sequence[float]) -> Iterator[dict[str, object]]:
    own, plain = gated_items(bench, items)
    answers = list(evaluate(bench, own, list(CHOICES), ps, "onsets", CHOICES))
    yield from _rows(plain + answers)


def rows_of_tau_s(bench: Bench, items: Sequence[Item], ps: Sequence[float]) -> Iterator[dict[str, object]]:
    own, plain = gated_items(bench, items)
    onsets = list(evaluate(bench, own, ["onsets"], ps, "onsets"))
    for tau_s in TAU_S:
        there = replace(bench, thresholds=Thresholds(tau_s=tau_s, tau_t=bench.thresholds.tau_t))
        renamed = [replace(answer, method=f"adatp, tau_s {tau_s}") for answer in evaluate(there, own, ["adatp"], ps)]
        yield from _rows([*plain, *onsets, *renamed], leave_out=() if tau_s == TAU_S[0] else ("none", "onsets"))


def _rows(answers: Sequence[Answer], leave_out: Sequence[str] = ()) -> Iterator[dict[str, object]]:
    verdict = judge(answers, "onsets")
    against = {(c.other, c.p): c for c in verdict.contrasts}
    for method, p in dict.fromkeys((a.method, a.p) for a in answers):
        if method in leave_out:
            continue
        score = verdict.score(method, p, "macro")
        row: dict[str, object] = {
            "method": method, "p": p, "items": score.n, "llm_flops_ratio": round(score.llm_flops_ratio, 4),
            "macro": round(100 * score.accuracy, 1),
        }  # fmt: skip
        if (contrast := against.get((method, p))) is not None:
            low, high = -contrast.interval.high, -contrast.interval.low
            row["minus_onsets"] = [round(100 * x, 1) for x in (-contrast.difference, low, high)]
        yield row | {t: round(100 * verdict.score(method, p, t).accuracy, 1) for t in verdict.gated}


PARTS = {"choices": rows_of_choices, "tau_s": rows_of_tau_s}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--items", type=int, default=960, help="dev items, a multiple of twelve (default: 960)")
    parser.add_argument("--p", default="1", help="comma-separated budgets (default: 1)")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/onsets_<part>.json")
    args = parser.parse_args()
    machine = describe()
    bench, rows = open_bench("builtin", "builtin"), []
    ps = [float(p) for p in args.p.split(",")]
    for row in PARTS[args.part](bench, benchmark_items("dev", args.items), ps):
        rows.append(row)
        print(json.dumps(row), flush=True)
    result = {"part": args.part, "items": args.items, "split": "dev", "rows": rows} | machine
    if args.save:
        (RESULTS / f"onsets_{args.part}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
