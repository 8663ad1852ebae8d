"""--where selects rows by any condition on columns, and can do nothing else, whatever is written into it."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import UsageError
from pipeline.index.where import Where

ROWS = pa.table(
    {
        "name": ["a.mp4", "b'c.mp4", None, "d.mkv"],
        "start_s": [0.0, 10.0, 20.0, None],
        "n": pa.array([1, 2, 3, 4], pa.int32()),
    }
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("start_s >= 10", [False, True, True, False]),
        ("name LIKE '%.mp4' AND NOT n = 1", [False, True, False, False]),
        ("name = 'b''c.mp4' OR start_s IS NULL", [False, True, False, True]),
        ("n IN (1, 4) -- a comment", [True, False, False, True]),
        ("n BETWEEN 2 AND 3", [False, True, True, False]),
        ("CASE WHEN n > 2 THEN true ELSE start_s < 5 END", [True, False, True, True]),
        ("upper(name) = 'A.MP4' or n::DOUBLE = 4", [True, False, False, True]),
        ("regexp_matches(name, '^[ab]')", [True, True, False, False]),
    ],
)
def test_conditions(text: str, expected: list[bool]) -> None:
    assert Where(text, ROWS.schema).keep(ROWS).tolist() == expected


def test_it_says_which_columns_it_needs() -> None:
    assert Where("start_s > 1 AND lower(name) = 'x'", ROWS.schema).columns == ("name", "start_s")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("start_s >", "syntax error at its end"),
        ("", "is empty"),
        ("colour = 'red'", "no column 'colour'; expected some of n, name, start_s"),
        ("n", "expected something true or false"),
        ("n > 1 AND", "syntax error"),
        ("name > 5 + []", "--where"),
        ("true) UNION SELECT (true", "more than one expression"),
        ("true) GROUP BY (n", "more than one expression"),
        ("true) LIMIT (1", "more than one expression"),
        ("true); DROP TABLE rows; SELECT (true", "--where"),
        ("true); COPY rows TO '{tmp}/x.csv'; SELECT (true", "--where"),
        ("COPY rows TO '{tmp}/x.csv'", "--where"),
        ("ATTACH '{tmp}/x.db'", "--where"),
        ("PRAGMA database_list", "--where"),
        ("INSTALL httpfs", "--where"),
        ("SET enable_external_access = true", "--where"),
        ("DELETE FROM rows", "--where"),
        ("read_csv('{tmp}/secret') IS NULL", "--where"),
        ("read_blob('{tmp}/secret') IS NULL", "--where"),
        ("getenv('HOME') <> ''", "--where"),
        ("query('SELECT 1') IS NULL", "--where"),
        ("name IN (FROM '{tmp}/secret')", "subquery"),
        ("n IN (SELECT 1)", "subquery"),
        ("EXISTS (SELECT * FROM read_csv('/etc/passwd'))", "subquery"),
        ("(SELECT count(*) FROM read_text('{tmp}/secret')) > 0", "subquery"),
        ("row_number() OVER () = 1", "window"),
        ("n = ?", "--where"),
        ("COLUMNS(*) IS NULL", "star"),
        ("sum(n) > 1", "--where"),
        ("len(range(10000000000)) > 1", "--where"),
        ("name::INTEGER > 1", "--where"),
    ],
)
def test_nothing_else_passes(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    with pytest.raises(UsageError, match=message) as refused:
        Where(text.replace("{tmp}", str(tmp_path)), ROWS.schema).keep(ROWS)
    assert "\n" not in str(refused.value).replace(text, "")
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
