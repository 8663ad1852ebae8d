"""From answers to claims: accuracies with intervals, the gate, the contrasts declared beforehand.

Primary contrast: the method of reference (`adatp`, unless another is named) against `uniform` and against `none` at
p = 1, macro over the types that pass the gate, at equal measured FLOPs; it is non-inferior when the 95% interval of the
difference stays above minus the margin. All else is exploratory and Holm-adjusted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.diagnostics import Diagnostics, summarise
from pipeline.evaluation.evaluate import AUDITS, REFERENCE, Answer
from pipeline.evaluation.statistics import Hits, Interval, holm, mcnemar, non_inferior, paired_bootstrap, wilson
from pipeline.planted.questions import TWELVE

GATE = 0.70
MARGIN = 0.02
FLOPS_TOLERANCE = 0.05
"""How far from the reference's FLOPs a method may be and still count as equal."""


@dataclass(frozen=True)
class Score:
    """One method at one p on one type (or "macro": the mean over the types of the gate)."""

    method: str
    p: float
    type: str
    n: int
    accuracy: float
    interval: Interval
    llm_flops_ratio: float
    evidence_kept: float
    """Share of items whose evidence still reaches the last layer; nan for audits."""


@dataclass(frozen=True)
class Contrast:
    """`method` minus `other` on the same items, macro over the gated types."""

    method: str
    other: str
    p: float
    difference: float
    interval: Interval
    p_value: float
    adjusted_p_value: float
    non_inferior: bool


@dataclass(frozen=True)
class Shortcut:
    """An audit on the items of which it saw no evidence. Above chance, one in four, the questions give answers away."""

    method: str
    n: int
    accuracy: float
    interval: Interval


@dataclass(frozen=True)
class Verdict:
    reference: str
    margin: float
    gated: tuple[str, ...]
    excluded: tuple[str, ...]
    scores: tuple[Score, ...]
    contrasts: tuple[Contrast, ...]
    shortcuts: tuple[Shortcut, ...]
    diagnostics: Diagnostics
    lost: tuple[str, ...]
    """Items whose file did not decode: counted as wrong above."""

    def score(self, method: str, p: float, type_: str) -> Score:
        return next(s for s in self.scores if (s.method, s.p, s.type) == (method, p, type_))


def _of(answers: Sequence[Answer], method: str, p: float, types: Sequence[str]) -> list[Answer]:
    """Those answers, ordered by item so that two methods pair up."""
    own = [a for a in answers if a.method == method and a.p == p and a.type in types]
    return sorted(own, key=lambda a: a.item_id)


def _hits(answers: Sequence[Answer]) -> Hits:
    return np.array([a.correct for a in answers], dtype=np.bool_)


def _score(method: str, p: float, name: str, own: list[Answer]) -> Score:
    hits = _hits(own)
    strata = [a.type for a in own]
    accuracy = float(np.mean([hits[[s == t for s in strata]].mean() for t in sorted(set(strata))]))
    kept = [a.evidence_kept_per_layer[-1] for a in own if a.evidence_kept_per_layer]
    flops = [a.llm_flops_ratio for a in own if not a.error]
    return Score(
        method, p, name, len(own), accuracy, wilson(int(hits.sum()), len(own)),
        float(np.mean(flops)) if flops else float("nan"), float(np.mean(kept)) if kept else float("nan"),
    )  # fmt: skip


def judge(answers: Sequence[Answer], reference: str = REFERENCE, margin: float = MARGIN) -> Verdict:
    """All scores and contrasts of a run. Raises ValueError when `none` is not among the methods: the gate needs it."""
    runs = sorted({(a.method, a.p) for a in answers})
    if ("none", 0.0) not in runs:
        raise ValueError("expected the method none among the answers, for the gate")
    types = [t for t in TWELVE if any(a.type == t for a in answers)]
    alone = {t: float(_hits(_of(answers, "none", 0.0, [t])).mean()) for t in types}
    gated = tuple(t for t in types if alone[t] >= GATE)
    scores = [_score(m, p, t, _of(answers, m, p, [t])) for m, p in runs for t in types]
    scores += [_score(m, p, "all", _of(answers, m, p, types)) for m, p in runs]
    if gated:
        scores += [_score(m, p, "macro", _of(answers, m, p, gated)) for m, p in runs]
    lost = tuple(sorted({a.item_id for a in answers if a.error}))
    excluded = tuple(t for t in types if t not in gated)
    contrasts = _contrasts(answers, runs, gated, reference, margin) if gated else ()
    return Verdict(
        reference, margin, gated, excluded, tuple(scores), contrasts, _shortcuts(answers), _diagnostics(answers), lost
    )


def _shortcuts(answers: Sequence[Answer]) -> tuple[Shortcut, ...]:
    found = []
    for method in (audit for audit in AUDITS if audit != "shuffled"):  # which shows everything
        hits = [a.correct for a in answers if a.method == method and not a.evidence_shown]
        if hits:
            found.append(Shortcut(method, len(hits), float(np.mean(hits)), wilson(sum(hits), len(hits))))
    return tuple(found)


def _diagnostics(answers: Sequence[Answer]) -> Diagnostics:
    plain = [a for a in answers if a.method == "none"]  # one answer an item
    known = [(a.diagnosis, a.type) for a in plain if a.diagnosis is not None]
    return summarise([diagnosis for diagnosis, _ in known], [type_ for _, type_ in known])


def _contrasts(
    answers: Sequence[Answer], runs: Sequence[tuple[str, float]], gated: Sequence[str], reference: str, margin: float
) -> tuple[Contrast, ...]:
    """The method of reference against every other at the same p, and against `none`."""
    raw: list[tuple[str, float, float, Interval, float]] = []
    for p in sorted({p for method, p in runs if method == reference}):
        own = _of(answers, reference, p, gated)
        for method, its_p in runs:
            if method == reference or method in AUDITS or its_p not in (p, 0.0):
                continue
            other = _of(answers, method, its_p, gated)
            if [a.item_id for a in own] != [a.item_id for a in other]:
                raise ValueError(f"{reference} and {method} did not answer the same items")
            difference, interval = paired_bootstrap(_hits(own), _hits(other), [a.type for a in own])
            raw.append((method, p, difference, interval, mcnemar(_hits(own), _hits(other))))
    adjusted = holm([row[4] for row in raw])
    return tuple(
        Contrast(reference, method, p, difference, interval, p_value, adjusted_p, non_inferior(interval, margin))
        for (method, p, difference, interval, p_value), adjusted_p in zip(raw, adjusted, strict=True)
    )


def _unequal(verdict: Verdict) -> list[str]:
    """Whom the reference's FLOPs could not be given: ratios too coarse, or layers that see every token."""
    spent = {(s.method, s.p): s.llm_flops_ratio for s in verdict.scores if s.type == "all"}
    found = []
    for (method, p), flops in spent.items():
        own = spent.get((verdict.reference, p), flops)
        if method != verdict.reference and abs(flops / own - 1) > FLOPS_TOLERANCE:
            found.append(f"{_label(method, p)} {100 * flops:.1f}% to {100 * own:.1f}%")
    return [f"not at the FLOPs of {verdict.reference}: {', '.join(found)}"] if found else []


def _label(method: str, p: float) -> str:
    return method if p == 0.0 else f"{method} p={p:g}"


def lines(verdict: Verdict) -> list[str]:
    """The verdict as a person reads it: a row a method, a column a type, then the contrasts."""
    types = list(dict.fromkeys(s.type for s in verdict.scores))
    runs = list(dict.fromkeys((s.method, s.p) for s in verdict.scores))
    head = f"{'method':22s} {'FLOPs':>6s} {'evid.':>6s} " + " ".join(f"{t[:6]:>6s}" for t in types)
    out = [head]
    for method, p in runs:
        overall = verdict.score(method, p, "all")
        cells = " ".join(f"{100 * verdict.score(method, p, t).accuracy:6.1f}" for t in types)
        share = f"{100 * overall.llm_flops_ratio:6.1f} {100 * overall.evidence_kept:6.1f}"
        out.append(f"{_label(method, p):22s} {share} {cells}")
    out.append(f"gate (none >= {GATE:.0%}): {', '.join(verdict.gated) or 'no type'}")
    if verdict.excluded:
        out.append(f"excluded by the gate: {', '.join(verdict.excluded)}")
    out += _unequal(verdict)
    for c in verdict.contrasts:
        sign = "non-inferior" if c.non_inferior else "not shown non-inferior"
        out.append(
            f"{c.method} - {c.other} at p={c.p:g}: {100 * c.difference:+.2f} points "
            f"[{100 * c.interval.low:+.2f}, {100 * c.interval.high:+.2f}], McNemar p={c.p_value:.3g} "
            f"(Holm {c.adjusted_p_value:.3g}), {sign} at {100 * verdict.margin:g} points"
        )
    out += [
        f"{s.method}, items of which it saw no evidence: {100 * s.accuracy:.1f}% of {s.n} right "
        f"[{100 * s.interval.low:.1f}, {100 * s.interval.high:.1f}], chance is 25"
        for s in verdict.shortcuts
    ]
    d = verdict.diagnostics
    out.append(
        f"segments against true cuts: F1 {d.segmentation_f1:.3f} (precision {d.segmentation_precision:.3f}, "
        f"recall {d.segmentation_recall:.3f}); relevance AUC {d.relevance_auc.get('all', float('nan')):.3f}"
    )
    if verdict.lost:
        out.append(f"did not decode, counted as wrong: {', '.join(verdict.lost)}")
    return out
