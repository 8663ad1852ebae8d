"""Every query of docs/querying.md and docs/recipes.md prints what the page says."""

from pathlib import Path

import pytest

from tests.querying import PAGES, build, printed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("querying")
    build(found)
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_page_prints_what_it_says(folder: Path, path: Path) -> None:
    page = path.read_text()
    blocks = list(printed(folder, page))
    assert len(blocks) == page.count("```text\n") >= 10
    for code, expected, found in blocks:
        assert found == expected, f"{code}\nrun `python -m tests.querying --update` if the page is to change"
