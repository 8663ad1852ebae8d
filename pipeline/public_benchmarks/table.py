"""From answers to the paper's table: a row per setting with intervals, tests against `none`, the paper's cells beside.

Every difference is paired: same questions, frames and prompts. Videos, not questions, are resampled, because questions
of one video hang together.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.statistics import Interval, holm, mcnemar, non_inferior, wilson
from pipeline.public_benchmarks.answers import Answer
from pipeline.public_benchmarks.benchmark import Benchmark
from pipeline.public_benchmarks.clustered import Table, bootstrap, interval, scores
from pipeline.public_benchmarks.paper import ACCURACY, LLM_FLOPS, PARTS, paper_label
from pipeline.public_benchmarks.settings import paper_model


@dataclass(frozen=True)
class Contrast:
    """A setting minus `none` on the same questions. p_value: exact McNemar; adjusted: Holm over the table."""

    difference: float
    interval: Interval
    p_value: float
    adjusted_p_value: float
    non_inferior: bool


@dataclass(frozen=True)
class Row:
    """One setting. Scores and ratios are shares of 1; `paper` and `paper_flops` are the paper's cells, if known."""

    method: str
    p: float
    n: int
    score: float
    interval: Interval
    parts: dict[str, float]
    part_counts: dict[str, int]
    unread: int
    """Replies in which no answer was found."""
    uncounted: int
    """Replies left out of the denominator (MVBench: empty ones)."""
    llm_flops: float | None
    llm_with_attention_flops: float | None
    end_to_end_flops: float | None
    visual_tokens: float | None
    """Mean over items and layers."""
    prefill_ms: float | None
    paper: float | None
    paper_flops: float | None
    paper_parts: dict[str, float]
    contrast: Contrast | None


@dataclass(frozen=True)
class Verdict:
    """A benchmark's table and what stands beside it."""

    benchmark: str
    model: str
    rows: tuple[Row, ...]
    n_questions: int
    n_videos: int
    lost: tuple[tuple[str, str], ...]
    """(item, why) of the questions that could not be asked."""
    lost_are: str
    """Counted "wrong", or left out: "exclude"."""
    odd: tuple[tuple[str, str], ...]
    notices: tuple[str, ...]


def judge(
    benchmark: Benchmark,
    model: str,
    answers: Sequence[Answer],
    missing: str,
    margin: float = 0.01,
    odd: Sequence[tuple[str, str]] = (),
    notices: Sequence[str] = (),
) -> Verdict:
    """The table of a run. `answers` hold every setting's answer to every question."""
    lost = dict.fromkeys((a.item_id, a.error) for a in answers if a.error)
    kept = [a for a in answers if missing != "exclude" or not a.error]
    by_setting: dict[tuple[str, float], list[Answer]] = {}
    for answer in kept:
        by_setting.setdefault((answer.method, answer.p), []).append(answer)
    rows = _rows(benchmark, model, by_setting, margin) if kept else ()
    first = next(iter(by_setting.values()), [])
    return Verdict(
        benchmark.name, model, rows, len(first), len({a.video for a in first}), tuple(lost), missing, tuple(odd),
        tuple(notices),
    )  # fmt: skip


def _rows(
    benchmark: Benchmark, model: str, by_setting: dict[tuple[str, float], list[Answer]], margin: float
) -> tuple[Row, ...]:
    groups = list(by_setting.values())
    correct: Table = np.array([[a.correct for a in group] for group in groups], dtype=np.bool_)  # (K, n)
    counted: Table = np.array([[a.is_counted or bool(a.error) for a in group] for group in groups], dtype=np.bool_)
    first = groups[0]
    parts = [a.part for a in first] if benchmark.macro else [""] * len(first)
    n_parts = len(benchmark.parts) or len(set(parts))
    clusters = [a.video for a in first]
    points = scores(correct, counted, parts, n_parts)  # (K,)
    draws = bootstrap(correct, counted, parts, n_parts, clusters)  # (K, D)
    alone = not benchmark.macro and len(set(clusters)) == len(clusters) and bool(counted.all())
    p_values = [mcnemar(row, correct[0]) for row in correct[1:]]
    adjusted = holm(p_values)
    rows = []
    for place, (method, p) in enumerate(by_setting):
        contrast = None
        if place:
            gap = interval(draws[place] - draws[0])
            contrast = Contrast(
                float(points[place] - points[0]), gap, p_values[place - 1], adjusted[place - 1],
                non_inferior(gap, margin),
            )  # fmt: skip
        spread = interval(draws[place])
        if alone or spread.low == spread.high:  # resampling says nothing where all items agree
            n = len(set(clusters))
            spread = wilson(round(float(points[place]) * n), n)
        rows.append(_row(model, benchmark.name, method, p, groups[place], float(points[place]), spread, contrast))
    return tuple(rows)


def _row(
    model: str,
    benchmark: str,
    method: str,
    p: float,
    answers: Sequence[Answer],
    score: float,
    spread: Interval,
    contrast: Contrast | None,
) -> Row:
    key, counted = paper_model(model), [a for a in answers if a.is_counted or a.error]
    counts = Counter(a.part for a in counted)
    asked = [a for a in answers if not a.error]
    layers = [np.mean(a.visual_tokens_per_layer) for a in asked if a.visual_tokens_per_layer]
    cell = paper_label(method, p)
    return Row(
        method=method,
        p=p,
        n=len(counted),
        score=score,
        interval=spread,
        parts={part: sum(a.correct for a in counted if a.part == part) / n for part, n in counts.items()},
        part_counts=dict(counts),
        unread=sum(not a.is_parsed for a in asked),
        uncounted=len(answers) - len(counted),
        llm_flops=_ratio(asked, "llm_flops_ratio"),
        llm_with_attention_flops=_ratio(asked, "llm_with_attention_flops_ratio"),
        end_to_end_flops=_ratio(asked, "end_to_end_flops_ratio"),
        visual_tokens=float(np.mean(layers)) if layers else None,
        prefill_ms=float(np.median([a.prefill_ms or 0.0 for a in asked])) if asked else None,
        paper=ACCURACY.get((key, benchmark), {}).get(cell),
        paper_flops=LLM_FLOPS.get(key, {}).get(cell),
        paper_parts=PARTS.get((key, benchmark, *cell), {}),
        contrast=contrast,
    )


def _ratio(asked: Sequence[Answer], column: str) -> float | None:
    """Sum of pruned over sum of unpruned, an item's weight being its unpruned tokens."""
    weights = np.array([a.n_visual_tokens + a.n_text_tokens for a in asked], dtype=np.float64)
    if not weights.sum():
        return None
    return float(np.average([getattr(a, column) for a in asked], weights=weights))


def lines(verdict: Verdict) -> list[str]:
    """The table as a person reads it."""
    title = f"{verdict.benchmark}, {verdict.model}: {verdict.n_questions} questions on {verdict.n_videos} videos"
    out = [title, *(f"note: {notice}" for notice in verdict.notices)]
    if not verdict.rows:
        return [*out, *_lists(verdict), "no question was asked: there is no table"]
    parts = list(dict.fromkeys(part for row in verdict.rows for part in row.parts))
    shown = parts if 1 < len(parts) <= 7 else []
    head = f"{'method':20s} {'LLM FLOPs':>9s} {'(paper)':>8s} " + " ".join(f"{part[:12]:>12s}" for part in shown)
    out.append(f"{head} {'score [95% interval]':>24s} {'(paper)':>8s} {'minus none [95%]':>24s} {'Holm p':>8s} unread")
    for row in verdict.rows:
        cells = " ".join(f"{100 * row.parts[part]:12.2f}" if part in row.parts else f"{'-':>12s}" for part in shown)
        score = f"{100 * row.score:.2f} [{100 * row.interval.low:.2f}, {100 * row.interval.high:.2f}]"
        out.append(
            f"{_label(row):20s} {_percent(row.llm_flops):>9s} {_cell(row.paper_flops):>8s} {cells} {score:>24s} "
            f"{_cell(row.paper):>8s} {_difference(row):>24s} {_holm(row):>8s} {row.unread}"
        )
    out += [f"{_label(r)}: {r.uncounted} empty replies left out of the score" for r in verdict.rows if r.uncounted]
    return [*out, *_lists(verdict)]


def _lists(verdict: Verdict) -> list[str]:
    said = "counted as wrong" if verdict.lost_are == "wrong" else "left out"
    out = []
    if verdict.lost:
        out.append(f"{len(verdict.lost)} questions could not be asked, {said}:")
        out += [f"  {item}: {why}" for item, why in verdict.lost]
    if verdict.odd:
        out.append(f"{len(verdict.odd)} rows depart from the published layout:")
        out += [f"  {item}: {why}" for item, why in verdict.odd]
    return out


def _label(row: Row) -> str:
    return row.method if row.p == 0 else f"{row.method} p={row.p:g}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"({value:.2f})"


def _difference(row: Row) -> str:
    if row.contrast is None:
        return "-"
    c = row.contrast
    return f"{100 * c.difference:+.2f} [{100 * c.interval.low:+.2f}, {100 * c.interval.high:+.2f}]"


def _holm(row: Row) -> str:
    return "-" if row.contrast is None else f"{row.contrast.adjusted_p_value:.3g}"


def groups_of(answers: Sequence[Answer]) -> dict[str, dict[str, float]]:
    """Accuracy of `none`'s further groups (task types, categories), for the JSON."""
    found: dict[str, dict[str, list[bool]]] = {}
    for answer in answers:
        for name, value in json.loads(answer.groups).items():
            if name not in ("options", "question"):
                found.setdefault(f"{answer.method}@{answer.p:g}/{name}", {}).setdefault(value, []).append(
                    answer.correct
                )
    return {name: {value: float(np.mean(hits)) for value, hits in by.items()} for name, by in found.items()}
