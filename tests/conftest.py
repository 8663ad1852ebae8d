"""What tests of more than one folder look at."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.first_steps import PAGE, lay_out, printed


@dataclass(frozen=True)
class Walk:
    """docs/first_steps.md, walked: where, and (commands, what the page says, what they printed)."""

    folder: Path
    steps: list[tuple[str, str, str]]


@pytest.fixture(scope="session")
def first_steps(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    folder = tmp_path_factory.mktemp("first_steps")
    lay_out(folder)
    return Walk(folder, list(printed(folder, PAGE.read_text())))
