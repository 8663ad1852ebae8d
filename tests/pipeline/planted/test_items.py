"""Items: the same every time, never shared between splits, and balanced."""

from collections import Counter

import pytest

from pipeline.planted.audit import best_blind_accuracy
from pipeline.planted.items import Item, balanced_items, benchmark_items, scene_hash, seed_of
from pipeline.planted.questions import TWELVE, QuestionType


@pytest.fixture(scope="module")
def items() -> dict[QuestionType, list[Item]]:
    return {type_: balanced_items("test", type_, 100) for type_ in TWELVE}


def test_splits_share_neither_seeds_nor_scenes(items: dict[QuestionType, list[Item]]) -> None:
    test = [item for own in items.values() for item in own]
    dev = benchmark_items("dev", 600)
    assert not {i.seed for i in test} & {i.seed for i in dev}
    assert not {scene_hash(i.clip) for i in test} & {scene_hash(i.clip) for i in dev}
    assert len({scene_hash(i.clip) for i in test}) == len(test)


def test_a_smaller_run_and_a_second_run_give_the_same_items(items: dict[QuestionType, list[Item]]) -> None:
    again = balanced_items("test", "flash", 100)
    assert [scene_hash(i.clip) for i in again] == [scene_hash(i.clip) for i in items["flash"]]
    assert (again[3].frames() == items["flash"][3].frames()).all()


def test_seeds_depend_on_every_part_of_the_name() -> None:
    names = [("test", "colour", 0), ("dev", "colour", 0), ("test", "shape", 0), ("test", "colour", 1)]
    assert len({seed_of(*name) for name in names}) == 4


@pytest.mark.parametrize("type_", TWELVE)
def test_answers_places_and_times_are_even(type_: QuestionType, items: dict[QuestionType, list[Item]]) -> None:
    own = items[type_]
    places = Counter(i.question.choices.index(i.question.answer) for i in own)
    assert max(places.values()) - min(places.values()) <= 8
    if type_ != "order":
        values = Counter(i.question.answer for i in own)
        assert max(values.values()) - min(values.values()) <= 8
    if type_ not in ("order", "quarter", "count"):
        assert max(Counter(i.time_bin for i in own).values()) <= 26


@pytest.mark.parametrize("type_", TWELVE)
def test_no_shortcut_without_looking(type_: QuestionType, items: dict[QuestionType, list[Item]]) -> None:
    """Naive Bayes over all that the question and its choices show stays within chance + 3 standard errors."""
    own = items[type_]
    standard_error = (0.25 * 0.75 / len(own)) ** 0.5
    assert best_blind_accuracy(own) <= 0.25 + 3 * standard_error


def test_a_count_that_twelve_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 12"):
        benchmark_items("test", 100)
