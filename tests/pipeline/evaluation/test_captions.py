"""Captions graded by their facts, paired."""

from dataclasses import replace

import pytest

from pipeline.evaluation.captions import Captioned, caption_lines, graded, score_captions
from pipeline.planted.captions import caption
from pipeline.planted.items import balanced_items


def test_a_caption_is_right_about_what_it_states_and_leaves_out() -> None:
    item = balanced_items("dev", "shape", 1)[0]
    truth = caption(item.clip)
    whole = graded(item, "none", 0.0, truth, 1.0, "stop")
    assert whole.share == 1.0
    assert graded(item, "none", 0.0, "", 1.0, "stop").n_right == 0
    invented = graded(item, "none", 0.0, truth.rstrip(".") + ", then a plaid teapot.", 1.0, "stop")
    assert (invented.n_right, invented.n_facts) == (whole.n_facts, whole.n_facts + 1)


def test_scores_are_paired_by_clip() -> None:
    def row(item: int, method: str, p: float, n_right: int) -> Captioned:
        return Captioned(f"i{item}", method, p, "", "", n_right, 4, 0.25 if p else 1.0, "stop")

    rows = [row(i, "none", 0.0, 4) for i in range(8)] + [row(i, "onsets", 1.0, 3 + i % 2) for i in range(8)]
    rows += [row(i, "uniform", 1.0, 2 + i % 2) for i in reversed(range(8))]
    scores = {s.method: s for s in score_captions(rows, "onsets")}
    assert scores["none"].minus_reference == pytest.approx(0.125)
    assert scores["onsets"].minus_reference == 0.0
    assert scores["uniform"].minus_reference == pytest.approx(-0.25)
    assert scores["uniform"].interval.low == scores["uniform"].interval.high == pytest.approx(-0.25)
    assert "minus onsets -25.0 points" in "\n".join(caption_lines(list(scores.values()), "onsets"))
    with pytest.raises(KeyError):
        score_captions([*rows, replace(rows[0], item_id="elsewhere")], "onsets")
