"""A question and its choices are one text, and come apart as they were put together."""

import pytest

from pipeline.describing.choices import split_choices, with_choices
from pipeline.errors import UsageError


def test_there_and_back() -> None:
    text = with_choices("What colour? ", [" red", "dark green "])
    assert text == "What colour? {red|dark green}"
    assert split_choices(text) == ("What colour?", ("red", "dark green"))


@pytest.mark.parametrize(
    "text", ["What?", "What {is} it?", "A {b|c} d", "Which? {a}", "Which? {a|}", "Which? {a|a}", "{a|b}"]
)
def test_other_texts_have_no_choices(text: str) -> None:
    assert split_choices(text) == (text, None)


@pytest.mark.parametrize("choices", [["a"], ["a", "a"], ["a", " "], ["a", "b|c"], ["{a", "b"]])
def test_bad_choices_are_refused(choices: list[str]) -> None:
    with pytest.raises(UsageError, match="choices"):
        with_choices("What?", choices)
