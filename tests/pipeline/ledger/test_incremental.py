"""Between two nights something changed: exactly what that touches is done again, and a mistyped flag redoes nothing."""

import shutil
from pathlib import Path

import pytest

from pipeline.config import IndexConfig
from tests.pipeline.ledger.incremental import (
    ALL,
    CELLS,
    Cell,
    first_night,
    restored,
    rows_in_page,
    second_night,
    table_row,
)

First = tuple[IndexConfig, Path, Path]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> First:
    folder = tmp_path_factory.mktemp("nights")
    config = first_night(folder / "place")
    shutil.copytree(folder / "place", folder / "saved")
    return config, folder / "saved", folder / "place"


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.change} {cell.flags}".strip())
def test_the_second_night_does_what_is_owed(cell: Cell, first: First) -> None:
    """Counted: probes, decodes, video files opened, models loaded, table files written, videos gone."""
    config, saved, place = first
    restored(saved, place)
    night = second_night(cell, config)
    assert (night.probes, night.decodes) == (cell.decoded, cell.decoded + cell.again)
    assert len(night.opened) == cell.decoded + cell.again
    assert night.models == cell.models
    assert night.workers == bool(night.decodes), "Ray would start exactly when something is decoded"
    assert night.tables == set(cell.tables.split())
    assert sum(status == "deleted" for status in night.statuses.values()) == cell.deleted
    assert f"--redo {cell.refused}" in night.refused if cell.refused else not night.refused
    if cell.tables == ALL and cell.decoded == 1 and not cell.change.startswith("a file"):
        assert night.n_kept, "a video that is only added rewrites no file of others"
    assert table_row(cell, night) in rows_in_page(), "python -m tests.pipeline.ledger.incremental"


def test_the_table_in_the_docs_has_these_cells() -> None:
    def key(row: str) -> list[str]:
        return [part.strip(" `") for part in row.split("|")[1:3]]

    assert [key(row) for row in rows_in_page()] == [[cell.change, cell.flags] for cell in CELLS]
