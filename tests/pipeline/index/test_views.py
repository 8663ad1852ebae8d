"""views.sql: every table and view answers, in an index that moved, that has tables without files, or a strange name."""

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.errors import UsageError
from pipeline.index.commits import commit
from pipeline.index.snapshot import Index
from pipeline.index.staging import encode_item, stage
from pipeline.index.tables import TABLES, table_schema
from pipeline.index.views import VIEWS, publish_views
from pipeline.ledger.ledger import changed_status
from pipeline.reading.changes import changes_since
from tests.pipeline.archive_rows import DIM, ENCODER, id_of, item_rows, uri_of, video_rows

DERIVED = ("segments_in_context", "joined_segments", "captioned", "evidence", "changes")


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
        assert set(expected.column_names) <= set(found.columns), table
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
def test_segments_that_are_alike_are_joined(index: Index, tau_s: float) -> None:
    """Against the plain loop: a segment whose boundary score reaches tau_s goes on with the shot before it."""
    publish_views(index, tau_s)
    with duckdb.connect() as db:
        db.execute((Path(index.url) / VIEWS).read_text())
        query = "SELECT video_id, joined_index, start_s, end_s, segment_ids FROM joined_segments ORDER BY 1, 2"
        found = db.sql(query).fetchall()
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


VIDEO_TABLES = ("videos", "clips", "segments", "frames", "captions", "answers")


def test_only_videos_that_are_there_are_shown_unless_asked_for(index: Index) -> None:
    commit(index, [], changed_status(index.read("videos", filter=pc.field("video_id") == id_of(1)), "deleted", "run-2"))
    publish_views(index, tau_s=0.4)
    with duckdb.connect() as db:
        db.execute((Path(index.url) / VIEWS).read_text())
        for table in (
            *VIDEO_TABLES,
            "segments_in_context",
            "joined_segments",
            "captioned",
            "search([1,0,0,0,0,0,0], 99)",
        ):
            found = {row[0] for row in db.sql(f"SELECT DISTINCT video_id FROM {table}").fetchall()}
            assert found == {id_of(0), id_of(2)}, table
        for table in VIDEO_TABLES:
            found = {row[0] for row in db.sql(f"SELECT DISTINCT video_id FROM all_{table}").fetchall()}
            assert found == {id_of(0), id_of(1), id_of(2)}, table


def test_videos_of_one_name_are_told_apart_by_path_and_opened_at_the_moment(tmp_path: Path) -> None:
    index = Index.create(str(tmp_path / "index"), ENCODER)
    stage(index.storage, "item", encode_item(item_rows(0)))
    videos = [row | {"name": "tape01.mp4", "path": "1999/tape01.mp4"} for row in video_rows(0).to_pylist()]
    commit(index, ["item"], pa.Table.from_pylist(videos, schema=table_schema("videos", DIM)))
    publish_views(index, tau_s=0.4)
    with duckdb.connect() as db:
        db.execute((Path(index.url) / VIEWS).read_text())
        for table in (
            "segments",
            "captions",
            "clips",
            "answers",
            "captioned",
            "joined_segments",
            "segments_in_context",
        ):
            found = db.sql(f"SELECT DISTINCT path, uri, link = uri || '#t=' || start_s::BIGINT FROM {table}").fetchall()
            assert found == [("1999/tape01.mp4", uri_of(0), True)], table
        assert db.sql("SELECT moment('s3://b/a#1.mp4', 3725.25)").fetchall() == [("s3://b/a%231.mp4#t=3725.25",)]


def test_changes_are_those_of_jobs_changes(index: Index) -> None:
    """Run 2 replaced one video, lost one and failed on one; run 3 asked something."""
    videos = [row | {"reason": "new", "content_run_id": "run-1"} for row in video_rows(0, 1, 2).to_pylist()]
    videos[0] |= {"reason": "changed", "content_run_id": "run-2", "run_id": "run-2"}
    videos[1] |= {"status": "deleted", "run_id": "run-2"}
    failed = video_rows(3, status="failed", n_clips=0).to_pylist()[0] | {"error_class": "NoFrames", "run_id": "run-2"}
    answers = [
        {**row, "question_id": "q2", "question": "New?", "run_id": "run-3"}
        for row in item_rows(2)["answers"].to_pylist()
    ]
    stage(
        index.storage,
        "asked",
        encode_item({"answers": pa.Table.from_pylist(answers, schema=table_schema("answers", DIM))}),
    )
    commit(index, ["asked"], pa.Table.from_pylist([*videos, failed], schema=table_schema("videos", DIM)))
    publish_views(index, tau_s=0.4)
    with duckdb.connect() as db:
        db.execute((Path(index.url) / VIEWS).read_text())
        by_view = db.sql("SELECT run_id, kind, path, detail FROM changes").fetchall()
    by_job = [(c.run_id, c.kind, c.path, c.detail) for c in changes_since(index, "2000")]
    assert sorted(by_view, key=str) == sorted(by_job, key=str)
    ours = [(c.kind, c.path, c.detail) for c in changes_since(index, "2000") if c.run_id > "run-1"]
    assert ours[:3] == [("changed", "000.mp4", None), ("deleted", "001.mp4", None), ("failed", "003.mp4", "NoFrames")]
    assert ("answered", "002.mp4", "New?") in ours
    assert [c.run_id for c in changes_since(index, None)] == ["run-3"]
    with pytest.raises(UsageError, match="no such run"):
        changes_since(index, "nosuch")
