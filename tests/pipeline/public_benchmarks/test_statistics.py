"""Clustered intervals against a slow obvious version, and what a macro mean is over."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.evaluation.statistics import mcnemar
from pipeline.public_benchmarks.answers import Answer, base_answer
from pipeline.public_benchmarks.benchmark import Grade, Question
from pipeline.public_benchmarks.clustered import bootstrap, interval, scores
from pipeline.public_benchmarks.registry import BENCHMARKS
from pipeline.public_benchmarks.settings import NONE, Setting, parse_settings
from pipeline.public_benchmarks.table import judge, lines

ADATP = parse_settings("adatp", [1.0], "p", "builtin")[1]


def answer(item: int, part: str, video: str, setting: Setting, correct: bool, counted: bool = True) -> Answer:
    question = Question(f"q{item}", item, "task", (video,), part, "p", "s", ("x", "y"), "A", 16)
    return base_answer("mlvu", question, setting, "A", Grade("A", correct, True, counted))


def by_hand(correct: np.ndarray, parts: list[str], clusters: list[str], rng: np.random.Generator) -> float:
    """One resample: in each part, as many videos as it has, drawn with repetition, all their items taken."""
    means = []
    for part in sorted(set(parts)):
        of = [i for i in range(len(parts)) if parts[i] == part]
        videos = sorted({clusters[i] for i in of})
        drawn = [i for video in rng.choice(videos, len(videos)) for i in of if clusters[i] == video]
        means.append(np.mean([correct[i] for i in drawn]))
    return float(np.mean(means))


def test_whole_videos_are_resampled_inside_each_part() -> None:
    rng = np.random.default_rng(5)
    parts = [("a", "b")[i % 3 == 0] for i in range(90)]
    clusters = [f"v{i // 5}" for i in range(90)]
    correct = np.repeat(rng.random(18) < 0.6, 5)  # the questions of a video stand or fall together
    slow = [by_hand(correct, parts, clusters, rng) for _ in range(3000)]
    counted = np.ones((1, 90), dtype=np.bool_)
    fast = bootstrap(correct[None], counted, parts, 2, clusters)[0]
    assert fast.mean() == pytest.approx(np.mean(slow), abs=0.01)
    assert fast.std() == pytest.approx(np.std(slow), rel=0.08)
    alone = bootstrap(correct[None], counted, parts, 2, [str(i) for i in range(90)])[0]
    assert fast.std() > 1.3 * alone.std(), "questions that stand or fall together are fewer observations"


def test_settings_share_their_draws() -> None:
    rng = np.random.default_rng(0)
    correct = np.stack([rng.random(60) < 0.7] * 2)
    draws = bootstrap(correct, np.ones_like(correct), [""] * 60, 1, [str(i // 3) for i in range(60)])
    assert interval(draws[0] - draws[1]).low == interval(draws[0] - draws[1]).high == 0


def test_a_task_without_rows_counts_as_nothing_right_in_mlvu_and_is_left_out_elsewhere() -> None:
    answers = [answer(i, part, f"v{i}", NONE, True) for i, part in enumerate(["plotQA", "ego"])]
    assert judge(BENCHMARKS["mlvu"], "builtin", answers, "wrong").rows[0].score == pytest.approx(2 / 7)
    assert judge(BENCHMARKS["mvbench"], "builtin", answers, "wrong").rows[0].score == 1.0
    assert scores(np.ones((1, 2), np.bool_), np.ones((1, 2), np.bool_), ["x", "y"], 4)[0] == 0.5


def test_mvbench_leaves_empty_replies_out_but_never_a_lost_question() -> None:
    answers = [answer(0, "a", "v0", NONE, True), answer(1, "a", "v1", NONE, False, counted=False)]
    lost = replace(answer(2, "a", "v2", NONE, False, counted=False), error="missing video: v2")
    row = judge(BENCHMARKS["mvbench"], "builtin", [*answers, lost], "wrong").rows[0]
    assert (row.score, row.uncounted, row.n) == (0.5, 1, 2)
    assert judge(BENCHMARKS["mvbench"], "builtin", [*answers, lost], "exclude").rows[0].score == 1.0


def test_a_row_stands_against_none_on_the_same_items() -> None:
    rng = np.random.default_rng(2)
    plain, pruned = rng.random(200) < 0.8, rng.random(200) < 0.6
    answers = [
        answer(i, "short", f"v{i // 3}", setting, bool(hits[i]))
        for i in range(200)
        for setting, hits in ((NONE, plain), (ADATP, pruned))
    ]
    verdict = judge(BENCHMARKS["videomme"], "builtin", answers, "wrong")
    contrast = verdict.rows[1].contrast
    assert contrast is not None
    assert contrast.difference == pytest.approx(pruned.mean() - plain.mean())
    assert contrast.p_value == contrast.adjusted_p_value == pytest.approx(mcnemar(pruned, plain))
    assert contrast.interval.low < contrast.difference < contrast.interval.high < 0
    assert not contrast.non_inferior


def test_the_papers_cells_stand_beside_ours_where_the_model_is_the_papers() -> None:
    answers = [answer(0, "short", "v0", setting, True) for setting in (NONE, ADATP)]
    verdict = judge(BENCHMARKS["videomme"], "llava-hf/llava-onevision-qwen2-7b-ov-hf", answers, "wrong")
    assert (verdict.rows[0].paper, verdict.rows[1].paper, verdict.rows[1].paper_flops) == (58.44, 59.04, 27.30)
    assert "(59.04)" in "\n".join(lines(verdict))
    assert judge(BENCHMARKS["videomme"], "builtin", answers, "wrong").rows[0].paper is None
    lv = judge(BENCHMARKS["videomme"], "lmms-lab/LLaVA-Video-7B-Qwen2", answers, "wrong")
    assert lv.rows[0].paper is None, "the paper's unpruned LLaVA-Video row is a copy of another model's"


def test_all_right_is_no_certainty() -> None:
    answers = [answer(i, "short", f"v{i}", NONE, True) for i in range(20)]
    assert judge(BENCHMARKS["videomme"], "builtin", answers, "wrong").rows[0].interval.low < 0.9
