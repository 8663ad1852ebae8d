"""Claims follow from answers, and a benchmark that is misused says so."""

import math
from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.evaluation.bench import open_bench
from pipeline.evaluation.diagnostics import Diagnosis, diagnose, summarise
from pipeline.evaluation.evaluate import Answer, check_methods, evaluate, evidence_kept
from pipeline.evaluation.verdict import GATE, judge, lines
from pipeline.planted.items import benchmark_items


def answers(method: str, p: float, type_: str, hits: list[bool], error: str = "") -> list[Answer]:
    return [
        Answer(
            f"test/{type_}/{i}",
            type_,
            method,
            p,
            "q",
            "a",
            "a" if hit else "b",
            hit,
            0,
            "0",
            0,
            False,
            1,
            0.3,
            0.5,
            [4, 2],
            [True, hit],
            Diagnosis(3, 2, 1, 0.75),
            error=error,
        )
        for i, hit in enumerate(hits)
    ]


def planted_answers() -> list[Answer]:
    good, weak = [True] * 90 + [False] * 10, [True] * 40 + [False] * 60
    rows = answers("none", 0.0, "colour", good) + answers("none", 0.0, "count", weak)
    rows += answers("adatp", 1.0, "colour", [True] * 89 + [False] * 11) + answers("adatp", 1.0, "count", weak)
    return rows + answers("uniform", 1.0, "colour", [True] * 60 + [False] * 40) + answers("uniform", 1.0, "count", weak)


def test_only_gated_types_enter_the_contrast() -> None:
    verdict = judge(planted_answers())
    assert verdict.gated == ("colour",)
    assert verdict.excluded == ("count",)
    against = {c.other: c for c in verdict.contrasts}
    assert against["none"].difference == pytest.approx(-0.01)
    assert against["uniform"].difference == pytest.approx(0.29)
    assert against["uniform"].p_value < 1e-6
    assert against["uniform"].non_inferior
    assert not against["none"].non_inferior  # -1 point, but a hundred items cannot exclude -2
    assert verdict.score("none", 0.0, "all").accuracy == pytest.approx((0.9 + 0.4) / 2)
    text = "\n".join(lines(verdict))
    assert f"gate (none >= {GATE:.0%}): colour" in text
    assert "+29.00 points" in text


def test_an_audit_counts_where_it_saw_no_evidence() -> None:
    """Right without evidence is a shortcut; right with it is not, and a clip out of order shows all of it."""
    seeing = answers("middle", 0.0, "colour", [True] * 100)
    blindly = [replace(a, evidence_shown=False) for a in answers("middle", 0.0, "count", ([True] + [False] * 3) * 25)]
    shuffled = [replace(a, method="shuffled") for a in [*seeing, *blindly]]
    (found,) = judge([*planted_answers(), *seeing, *blindly, *shuffled]).shortcuts
    assert (found.method, found.n, found.accuracy) == ("middle", 100, 0.25)
    assert found.interval.low < 0.25 < found.interval.high


def test_diagnostics_against_a_scene_graph() -> None:
    # Scenes 0-3, 4-5, 6-9; segments found 0-3, 4-7, 8-9: one cut of two hit. The evidence lies in the middle scene.
    one = diagnose((4, 2, 4), (4, 4, 2), (0.1, 0.5, 0.2), [5])
    assert (one.cuts_true, one.cuts_found, one.cuts_hit) == (2, 2, 1)
    # Frames 4, 5 at 0.5 against 0-3 at 0.1, 6, 7 at 0.5 (ties) and 8, 9 at 0.2.
    assert one.relevance_auc == pytest.approx((6 + 2 / 2) / 8)
    still = diagnose((10,), (10,), (0.3,), [2])
    assert math.isnan(still.relevance_auc)
    both = summarise([one, still], ["colour", "shape"])
    assert both.segmentation_precision == both.segmentation_recall == both.segmentation_f1 == 0.5
    assert both.relevance_auc == {"colour": one.relevance_auc, "all": one.relevance_auc}
    verdict = judge(planted_answers())
    assert verdict.diagnostics.segmentation_f1 == pytest.approx(2 / 5)
    assert "relevance AUC 0.750" in "\n".join(lines(verdict))


def test_an_item_that_does_not_decode_counts_as_wrong_and_is_listed() -> None:
    rows = planted_answers()
    rows += [
        replace(answers(m, p, "colour", [False], "moov")[0], item_id="test/colour/x", llm_flops_ratio=float("nan"))
        for m, p in (("none", 0.0), ("adatp", 1.0), ("uniform", 1.0))
    ]
    verdict = judge(rows)
    assert verdict.lost == ("test/colour/x",)
    assert verdict.score("none", 0.0, "colour").accuracy == pytest.approx(90 / 101)
    assert verdict.score("none", 0.0, "colour").llm_flops_ratio == pytest.approx(0.3)


def test_without_none_there_is_no_gate() -> None:
    with pytest.raises(ValueError, match="method none"):
        judge(answers("adatp", 1.0, "colour", [True]))


def test_evidence_needs_every_group_and_any_of_a_group() -> None:
    groups = (frozenset({(0, 3), (1, 3)}), frozenset({(2, 5)}))
    assert evidence_kept(groups, [1 * 16 + 3, 2 * 16 + 5], 16)
    assert not evidence_kept(groups, [0 * 16 + 3, 1 * 16 + 3], 16)


def test_unknown_names_are_refused_before_any_work() -> None:
    with pytest.raises(UsageError, match="unknown"):
        check_methods(["adatp", "adpat"])
    with pytest.raises(UsageError, match=r"no such folder|neither|not a folder"):
        open_bench("./nowhere", "builtin")


@pytest.mark.parametrize("reference", ["adatp", "onsets"])
def test_methods_meet_the_same_items_at_equal_measured_tokens(reference: str) -> None:
    """Twelve items through the real engine; whole frames and whole tokens a frame round more coarsely."""
    bench = open_bench("builtin", "builtin")
    items = benchmark_items("dev", 12)
    exact = ["random", "uniform", "evs", "echoprune", "vcast"]
    coarse = {"vidcom2": 0.08, "framedrop": 0.08, "visionzip": 0.15, "pyramiddrop": 0.08}
    methods = ["none", "adatp", "onsets", *exact, *coarse, "adatp-none", "blind", "middle"]
    rows = list(evaluate(bench, items, methods, [1.0], reference))
    by = {m: {r.item_id: r for r in rows if r.method == m} for m in methods}
    assert all(set(own) == {i.item_id for i in items} for own in by.values())
    assert all(sum(r.visual_tokens_per_layer) == 8 * 512 for r in by["none"].values())
    assert all(all(r.evidence_kept_per_layer) for r in by["none"].values())
    for name in (*exact, *coarse):
        ours = np.array([sum(r.visual_tokens_per_layer) for r in by[reference].values()])
        theirs = np.array([sum(r.visual_tokens_per_layer) for r in by[name].values()])
        assert abs(theirs.sum() / ours.sum() - 1) < coarse.get(name, 0.02), name
    verdict = judge(rows, reference, margin=0.015)
    assert verdict.score("adatp", 1.0, "all").llm_flops_ratio < 0.5
    assert {c.method for c in verdict.contrasts} == {reference}
    text = "\n".join(lines(verdict))
    assert "at 1.5 points" in text
    (unequal,) = [line for line in text.splitlines() if line.startswith(f"not at the FLOPs of {reference}")]
    assert "adatp-none p=1" in unequal, "it has no ratio to set"
    assert ("adatp p=1" in unequal) == (reference == "onsets"), "AdaTP's first layers see everything"
