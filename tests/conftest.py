"""What tests of more than one folder look at."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.readme import PAGE, lay_out, printed


@dataclass(frozen=True)
class Walk:
    """README's way from nothing to an answer, walked: where, and (commands, what README says, what they printed)."""

    folder: Path
    steps: list[tuple[str, str, str]]


@pytest.fixture(scope="session")
def readme_walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    folder = tmp_path_factory.mktemp("readme")
    lay_out(folder)
    return Walk(folder, list(printed(folder, PAGE.read_text())))
