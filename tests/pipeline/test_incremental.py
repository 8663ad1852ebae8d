"""Between two nights something changed: exactly what that touches is done again, and a mistyped flag redoes nothing."""

from pathlib import Path

import pytest

from tests.pipeline.incremental import BEGIN, CELLS, END, N_CLIPS, PAGE, Cell, incremental_table, second_night


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.change} {cell.flags}".strip())
def test_the_second_night_does_what_is_owed(cell: Cell, tmp_path: Path) -> None:
    plan = second_night(cell, tmp_path)
    modes = [todo.mode for todo in plan.todo]
    assert (modes.count("index"), modes.count("again"), len(plan.deleted)) == (cell.decoded, cell.again, cell.deleted)
    assert plan.conflicts == ({cell.refused: 4 * N_CLIPS} if cell.refused else {})


def test_the_table_in_the_docs_is_this_one() -> None:
    assert PAGE.read_text().partition(BEGIN)[2].partition(END)[0] == incremental_table()
