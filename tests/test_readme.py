"""README holds five blocks from nothing to an answer, and each prints what README says."""

from tests.conftest import Walk
from tests.readme import PAGE, agrees, steps


def test_there_are_five_and_they_come_first() -> None:
    page = PAGE.read_text()
    commands = [commands for commands, _ in steps(page)]
    assert len(commands) == 5
    for words, block in zip(("make", "jobs.index", "SELECT", "jobs.search", "jobs.ask"), commands, strict=True):
        assert words in block
    section = page[page.index("## From nothing") : page.index("## On your own videos")]
    assert section.count("```") == 2 * 2 * 5, "another block stands between them"
    assert page.index("```") > page.index("## From nothing")


def test_they_print_what_readme_says(readme_walk: Walk) -> None:
    for commands, expected, found in readme_walk.steps:
        assert agrees(expected, found), (
            f"{commands}\n{found}\n`python -m tests.readme --update`, if README is to change"
        )
