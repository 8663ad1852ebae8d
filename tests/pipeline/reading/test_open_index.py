"""An index in a notebook: the jobs' own numbers, as Arrow, pandas and Polars, and pages that stay text."""

import json
from pathlib import Path

import polars
import pytest

import jobs.search
from pipeline import open_index
from pipeline.errors import UsageError
from tests.jobs.conftest import archive, indexed  # noqa: F401  # fixtures


def test_tables_come_as_arrow_pandas_and_polars(indexed: Path) -> None:  # noqa: F811
    index = open_index(str(indexed))
    captions = index.captions(where="path LIKE 'sub/%'")
    assert set(captions.arrow["path"].to_pylist()) == {"sub/b with space.mkv"}
    assert len(captions.to_pandas()) == len(captions) == captions.to_polars().height > 0
    assert isinstance(captions.to_polars(), polars.DataFrame)
    assert len(index.sql("SELECT * FROM videos")) == len(index.videos()) == 3
    assert {change.kind for change in index.changes()} == {"new"}
    with pytest.raises(UsageError, match="SELECT"):
        index.sql("DROP VIEW videos")
    with pytest.raises(UsageError, match="is not an index"):
        open_index("/nowhere")


def test_search_is_that_of_the_job(indexed: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    found = open_index(str(indexed)).search("a red square", top=3, look_alikes=True, where="start_s > 1")
    flags = ["--index", str(indexed), "a red square", "--top", "3", "--all", "--where", "start_s > 1", "--json"]
    assert jobs.search.main(flags) == 0
    ours = json.loads(capsys.readouterr().out)["hits"]
    assert found.rows.arrow.to_pylist() == ours
    assert found.n_searched > 3
    page = found._repr_html_()
    assert page.count("<img") == 3
    assert f'href="{ours[0]["link"]}"'.replace("&", "&amp;") in page


def test_pages_are_text(indexed: Path) -> None:  # noqa: F811
    page = open_index(str(indexed)).sql("SELECT '<script>alert(1)</script>' AS evil, 3 AS n")._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_neighbouring_hits_are_one_and_weak_ones_stay_apart(indexed: Path) -> None:  # noqa: F811
    index = open_index(str(indexed))
    apart = index.search("a red square", top=100, look_alikes=True)
    joined = index.search("a red square", top=100, merge_s=1000)
    strong = {hit.video_id for hit in apart if not hit.weak}
    assert sum(not hit.weak for hit in joined) == len(strong)
    assert all(hit.score >= 0.2 for hit in index.search("a red square", top=100, min_score=0.2))
    assert not any(hit.weak for hit in index.search("a red square", top=100, weak=False))
