"""SQL over an index: three forms of output, on a disk and in S3, and nothing outside the index is reached."""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest

from jobs import query
from pipeline.errors import UsageError
from pipeline.reading.sql import run_sql
from pipeline.storage.s3 import s3
from tests.conftest import Walk

SELECT = "SELECT name, status, 'a, \"b\"' AS odd, [1, 2] AS numbers FROM videos ORDER BY name"


@pytest.fixture
def demo(first_steps: Walk) -> Path:
    return first_steps.folder / "demo" / "seed-7" / "index"


def test_three_forms_say_the_same(demo: Path) -> None:
    as_json = [json.loads(line) for line in run_sql(str(demo), SELECT, "json").splitlines()]
    as_csv = list(csv.DictReader(io.StringIO(run_sql(str(demo), SELECT, "csv"))))
    assert [row["name"] for row in as_json] == [f"planted-7-00{i}.mp4" for i in range(6)]
    assert [{**row, "numbers": json.loads(row["numbers"])} for row in as_csv] == as_json
    assert "planted-7-005.mp4" in run_sql(str(demo), SELECT, "table")


def test_in_s3_it_is_the_same(demo: Path, s3_url: str) -> None:
    s3().put(f"{demo}/", f"{s3_url}/index/", recursive=True)
    assert run_sql(f"{s3_url}/index", SELECT, "json") == run_sql(str(demo), SELECT, "json")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('{outside}')",
        "COPY (SELECT 1) TO '{outside}.csv'",
        "SELECT * FROM read_text('{index}/../secret')",
        "SET enable_external_access = true",
        "ATTACH '{outside}.db'",
        "CREATE TABLE mine AS SELECT 1",
        "COPY (SELECT 1) TO '{index}/videos/mine.parquet'",
        "SELECT 1; SELECT 2",
        "SELEC",
    ],
)
def test_what_reaches_out_or_writes_is_one_line(demo: Path, tmp_path: Path, sql: str) -> None:
    outside = tmp_path / "secret"
    outside.write_text("not yours")
    (demo.parent / "secret").write_text("not yours")
    with pytest.raises(UsageError, match=r"DuckDB refused|expected one SELECT"):
        run_sql(str(demo), sql.format(outside=outside, index=demo), "table")
    assert list(tmp_path.iterdir()) == [outside]


def test_hostile_views_reach_nothing_outside(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = tmp_path / "index"
    shutil.copytree(demo, index)
    (tmp_path / "secret").write_text("not yours")
    (index / "views.sql").write_text(f"CREATE VIEW videos AS SELECT * FROM read_text('{tmp_path}/secret');")
    assert query.main(["--index", str(index), "FROM videos"]) == 2
    assert "not yours" not in "".join(capsys.readouterr())
