"""docs/first_steps.md holds five blocks from nothing to an answer, and each prints what the page says."""

from tests.conftest import Walk
from tests.first_steps import PAGE, agrees, steps


def test_there_are_five_in_order() -> None:
    page = PAGE.read_text()
    commands = [commands for commands, _ in steps(page)]
    assert len(commands) == 5
    for words, block in zip(("make", "jobs.index", "SELECT", "jobs.search", "jobs.ask"), commands, strict=True):
        assert words in block
    assert page.count("```") == 2 * 2 * 5, "another block stands between them"


def test_they_print_what_the_page_says(first_steps: Walk) -> None:
    for commands, expected, found in first_steps.steps:
        assert agrees(expected, found), f"{commands}\n{found}\nif it is to change: python -m tests.first_steps --update"
