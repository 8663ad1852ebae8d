"""views.sql: every table and view answers, in an index that moved, that has tables without files, or a strange name."""

from pathlib import Path

import duckdb
import numpy as np
import pytest

from pipeline.index.commits import commit
from pipeline.index.schemas import TABLES
from pipeline.index.snapshot import Index
from pipeline.index.staging import encode_item, stage
from pipeline.index.views import VIEWS, publish_views
from tests.pipeline.archive_rows import DIM, ENCODER, id_of, item_rows, video_rows

DERIVED = ("segments_in_context", "shots", "captioned", "evidence")


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Three videos of two clips of two segments; `errors` and `runs` have no file. The folder has a quote in it."""
    index = Index.create(str(tmp_path / "it's here" / "index"), ENCODER)
    for n in range(3):
        stage(index.storage, f"item-{n}", encode_item(item_rows(n)))
    commit(index, [f"item-{n}" for n in range(3)], video_rows(0, 1, 2))
    publish_views(index, tau_s=0.4)
    return index


@pytest.fixture
def db(index: Index) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute((Path(index.url) / VIEWS).read_text())
    return connection


def test_every_table_is_a_view_with_its_columns(db: duckdb.DuckDBPyConnection, index: Index) -> None:
    for table in TABLES:
        found = db.sql(f"SELECT * FROM {table}")
        expected = index.read(table)
        assert found.columns == expected.column_names, table
        assert len(found.fetchall()) == expected.num_rows, table
    assert str(db.sql("SELECT embedding FROM segments").types[0]) == f"FLOAT[{DIM}]"


def test_an_index_without_any_row_answers_too(tmp_path: Path) -> None:
    index = Index.create(str(tmp_path / "empty"))
    publish_views(index, tau_s=0.4)
    with duckdb.connect() as db:
        db.execute((tmp_path / "empty" / VIEWS).read_text())
        for name in (*TABLES, *DERIVED):
            assert db.sql(f"SELECT * FROM {name}").fetchall() == [], name
        assert db.sql("SELECT * FROM search([1], 5)").fetchall() == []


def test_written_once_and_again_only_when_something_changed(index: Index) -> None:
    path = Path(index.url) / VIEWS
    before = path.stat()
    publish_views(index, tau_s=0.4)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    publish_views(index, tau_s=0.5)
    assert "boundary_score >= 0.5" in path.read_text()


def test_a_moved_index_is_found_through_the_variable(index: Index, tmp_path: Path) -> None:
    moved = Path(index.url).rename(tmp_path / "moved")
    with duckdb.connect() as db:
        db.execute(f"SET VARIABLE index_url = '{moved}'")
        db.execute((moved / VIEWS).read_text())
        assert db.sql("SELECT count(*) FROM videos").fetchall() == [(3,)]


@pytest.mark.parametrize("tau_s", [0.4, 0.6])
def test_shots_join_segments_that_are_alike(index: Index, tau_s: float) -> None:
    """Against the plain loop: a segment whose boundary score reaches tau_s goes on with the shot before it."""
    publish_views(index, tau_s)
    with duckdb.connect() as db:
        db.execute((Path(index.url) / VIEWS).read_text())
        found = db.sql("SELECT video_id, shot_index, start_s, end_s, segment_ids FROM shots ORDER BY 1, 2").fetchall()
    expected: list[tuple[str, int, float, float, list[str]]] = []
    for n in sorted(range(3), key=id_of):
        shots: list[list[dict[str, object]]] = []
        for segment in item_rows(n)["segments"].to_pylist():
            score = segment["boundary_score"]
            if score is not None and score >= tau_s:
                shots[-1].append(segment)
            else:
                shots.append([segment])
        for i, shot in enumerate(shots):
            ids = [str(s["segment_id"]) for s in shot]
            expected.append((id_of(n), i, float(str(shot[0]["start_s"])), float(str(shot[-1]["end_s"])), ids))
    assert found == expected
    assert len(expected) == (3 if tau_s <= 0.5 else 12)


def test_neighbours_are_those_in_time(db: duckdb.DuckDBPyConnection) -> None:
    rows = db.sql(
        "SELECT segment_id, place, previous_segment_id, next_segment_id FROM segments_in_context "
        f"WHERE video_id = '{id_of(1)}' ORDER BY start_s"
    ).fetchall()
    ids = [s["segment_id"] for s in item_rows(1)["segments"].to_pylist()]
    assert rows == list(zip(ids, range(4), [None, *ids[:-1]], [*ids[1:], None], strict=True))


def test_search_ranks_by_the_dot_product(db: duckdb.DuckDBPyConnection) -> None:
    query = np.random.default_rng(5).standard_normal(DIM)
    query /= np.linalg.norm(query)
    segments = [s for n in range(3) for s in item_rows(n)["segments"].to_pylist()]
    scores = {s["segment_id"]: float(np.asarray(s["embedding"], np.float64) @ query) for s in segments}
    found = db.execute("SELECT segment_id, score FROM search(?, 5)", [query.tolist()]).fetchall()
    assert [segment_id for segment_id, _ in found] == sorted(scores, key=lambda s: -scores[s])[:5]
    np.testing.assert_allclose([score for _, score in found], [scores[s] for s, _ in found], atol=1e-5)
    alike = db.execute("SELECT segment_id FROM similar_to(?, 100)", [segments[0]["segment_id"]]).fetchall()
    assert len(alike) == len(segments) - 1
