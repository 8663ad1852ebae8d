"""jobs.search as people run it, on an index of the session."""

import csv
import io
import json
from pathlib import Path

import pytest

from tests.jobs.conftest import files_of, job


def test_table_json_and_csv_say_the_same(indexed: Path) -> None:
    before = files_of(indexed)
    where = ["--where", "name = 'long.mp4'", "--top", "3", "--all"]
    as_json = job("search", "--index", str(indexed), "a red square", *where, "--json")
    assert as_json.code == 0, as_json.err
    hits = json.loads(as_json.out)["hits"]
    assert len(hits) == 3
    assert {hit["name"] for hit in hits} == {"long.mp4"}
    as_csv = list(
        csv.DictReader(io.StringIO(job("search", "--index", str(indexed), "a red square", *where, "--csv").out))
    )
    assert [row["segment_id"] for row in as_csv] == [hit["segment_id"] for hit in hits]
    table = job("search", "--index", str(indexed), "a red square", *where).out
    assert table.count("long.mp4") == 3
    assert files_of(indexed) == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["x", "--where", "true); DROP TABLE videos; SELECT (true"], "--where"),
        (["x", "--where", "start_s >"], "syntax error at its end"),
        (["x", "--tpo", "3"], "unrecognized arguments: --tpo 3; see python -m jobs.search --help"),
        (["x", "--top", "0"], "--top 0"),
        (["  "], "empty text"),
        (["x", "--index", "/nowhere"], "is not an index"),
    ],
)
def test_bad_input_is_one_line(indexed: Path, flags: list[str], message: str) -> None:
    ended = job("search", "--index", str(indexed), *flags)
    assert ended.code == 2
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert ended.out == ""
