"""Captions graded by the facts they state, every method on the same clips at equal measured FLOPs.

A fact is a thing named, "red star". Of what a caption states and what the clip shows together, the share that is in
both: one left out and one made up weigh the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from adatp import Request
from pipeline.config import DEFAULT_CAPTION_PROMPT
from pipeline.evaluation.evaluate import AUDITS, REFERENCE, Bench, Seen, at_equal_cost, batches, caption_request
from pipeline.evaluation.statistics import Interval, bootstrap_mean
from pipeline.planted.captions import caption, facts
from pipeline.planted.items import Item

MAX_NEW_TOKENS = 128


@dataclass(frozen=True)
class Captioned:
    """One method's caption of one clip; a row of the Parquet."""

    item_id: str
    method: str
    p: float
    caption: str
    truth: str
    n_right: int
    n_facts: int
    """Different things stated or shown."""
    llm_flops_ratio: float
    finish_reason: str

    @property
    def share(self) -> float:
        return self.n_right / self.n_facts


@dataclass(frozen=True)
class CaptionScore:
    """One method at one p: the mean share of facts right, and how it stands to the reference on the same clips."""

    method: str
    p: float
    n: int
    facts_right: float
    llm_flops_ratio: float
    minus_reference: float
    interval: Interval


def graded(item: Item, method: str, p: float, text: str, flops: float, finish_reason: str) -> Captioned:
    truth = caption(item.clip)
    stated, shown = set(facts(text)), set(facts(truth))
    n_right, n_facts = len(stated & shown), len(stated | shown)
    return Captioned(item.item_id, method, p, text, truth, n_right, n_facts, flops, finish_reason)


def caption_all(
    bench: Bench, items: Sequence[Item], methods: Sequence[str], ps: Sequence[float], reference: str = REFERENCE
) -> Iterator[Captioned]:
    """Every method on every clip at every p; `none` once, at p 0."""
    names = [name for name in methods if name != "none" and name not in AUDITS]

    def describe(seen: list[Seen], some: Sequence[str], p: float, first: str) -> Iterator[Captioned]:
        def ask(one: Seen, name: str, share: float | None) -> Request:
            return caption_request(bench, one, name, p or 1.0, DEFAULT_CAPTION_PROMPT, MAX_NEW_TOKENS, share)

        for one, name, result in at_equal_cost(bench.engine, seen, some, first, ask):
            yield graded(one.item, name, p, result.text, result.flops.paper, result.finish_reason)

    for batch in batches(items):
        seen = [bench.see(item) for item in batch]
        if "none" in methods:
            yield from describe(seen, ["none"], 0.0, "none")
        for p in ps:
            yield from describe(seen, names, p, reference)


def score_captions(rows: Sequence[Captioned], reference: str = REFERENCE) -> list[CaptionScore]:
    """One score a method and p, in the order of the rows; `none` stands beside the reference at every p."""
    scores = []
    by_run = {run: {r.item_id: r for r in rows if (r.method, r.p) == run} for run in {(r.method, r.p): 0 for r in rows}}
    ps = [p for method, p in by_run if method == reference]
    for (method, p), own in by_run.items():
        beside = by_run[reference, p if p in ps else ps[0]]
        ordered = sorted(own)
        differences = np.array([own[key].share - beside[key].share for key in ordered])
        difference, interval = bootstrap_mean(differences)
        scores.append(
            CaptionScore(
                method, p, len(own), fmean(own[key].share for key in ordered),
                fmean(own[key].llm_flops_ratio for key in ordered), difference, interval,
            )
        )  # fmt: skip
    return scores


def caption_lines(scores: Sequence[CaptionScore], reference: str = REFERENCE) -> list[str]:
    return [
        f"caption facts, {s.method}{f' p={s.p:g}' if s.p else ''}: {100 * s.facts_right:.1f}% right of {s.n} clips at "
        f"{100 * s.llm_flops_ratio:.1f}% FLOPs; minus {reference} {100 * s.minus_reference:+.1f} points "
        f"[{100 * s.interval.low:+.1f}, {100 * s.interval.high:+.1f}]"
        for s in scores
    ]
