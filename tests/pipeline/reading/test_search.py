"""Search against the plain way: all vectors in memory, a dot product, a sort."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import UsageError
from pipeline.index.commits import commit
from pipeline.index.snapshot import Index
from pipeline.index.staging import encode_item, stage
from pipeline.reading import search as searching
from pipeline.reading.search import encoder_of, search
from tests.pipeline.archive_rows import DIM, ENCODER, item_rows, video_rows

N_VIDEOS = 60
NO_SUPPRESSION = 2.0


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """60 videos of 2 clips of 2 segments, in three files."""
    index = Index.create(str(tmp_path_factory.mktemp("search") / "index"), ENCODER)
    for first in range(0, N_VIDEOS, 20):
        numbers = range(first, first + 20)
        for n in numbers:
            stage(index.storage, f"item-{n}", encode_item(item_rows(n)))
        commit(index, [f"item-{n}" for n in numbers], video_rows(*numbers))
    return index


@pytest.fixture(scope="module")
def segments() -> list[dict[str, Any]]:
    return [row | {"number": n} for n in range(N_VIDEOS) for row in item_rows(n)["segments"].to_pylist()]


def query(seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    vector = np.random.default_rng(seed).standard_normal(DIM)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def scores_of(segments: list[dict[str, Any]], seed: int) -> dict[str, float]:
    return {s["segment_id"]: float(np.asarray(s["embedding"], np.float32) @ query(seed)) for s in segments}


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (" red circle ", "a photo of red circle"),
        ("a dog on a beach", "a photo of a dog on a beach"),
        ("Is there a dog?", "Is there a dog?"),
        ("A dog runs.", "A dog runs."),
    ],
)
def test_words_are_read_as_a_caption_and_sentences_as_they_stand(text: str, read: str) -> None:
    assert searching.as_caption(text) == read


@pytest.mark.parametrize("n", [1, 512, 1300])
def test_dots_are_those_of_converted_halves(n: int) -> None:
    """Every finite half occurs, subnormals and both zeros too; a product of converted halves is no more exact."""
    finite = np.concatenate([np.arange(0x7C00), np.arange(0x8000, 0xFC00)]).astype(np.uint16).view(np.float16)
    halves = np.resize(finite, (n, 49)) if n > 1 else finite[:49][None]
    queries = np.eye(49, dtype=np.float32)
    np.testing.assert_array_equal(searching.dots(halves, queries), halves.astype(np.float32))


@pytest.mark.parametrize("seed", range(5))
def test_ranks_as_a_sort_of_all_scores(index: Index, segments: list[dict[str, Any]], seed: int) -> None:
    found = search(index, query(seed), 10, None, NO_SUPPRESSION)
    scores = scores_of(segments, seed)
    expected = sorted(scores, key=lambda s: -scores[s])[:10]
    assert [hit.segment_id for hit in found.hits] == expected
    assert found.n_searched == len(segments)
    every = np.asarray(list(scores.values()))
    for hit in found.hits:
        assert hit.score == pytest.approx(scores[hit.segment_id], abs=1e-6)
        assert hit.z == pytest.approx((hit.score - every.mean()) / every.std(), abs=1e-4)
    truth = {s["segment_id"]: s for s in segments}
    assert all(hit.start_s == truth[hit.segment_id]["start_s"] for hit in found.hits)
    assert all(hit.name == f"{truth[hit.segment_id]['number']:03d}.mp4" for hit in found.hits)


def test_few_candidates_in_memory_change_nothing(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound on memory, made tiny through many row groups, gives the same hits as no bound."""
    whole = search(index, query(1), 3, None, NO_SUPPRESSION)
    parts = [searching._score(index, place, query(1), 3, None) for place in _places(index)]
    merged: list[Any] = []
    for part in parts:
        merged = searching._merged([*merged, part], 3)
    assert sum(len(part.rows) for part in merged) <= 6
    hits = list(searching._hits(index, index.snapshot(), merged, 3, NO_SUPPRESSION, 0.0, 1.0))
    assert [hit.segment_id for hit in hits] == [hit.segment_id for hit in whole.hits]


def _places(index: Index) -> list[Any]:
    found = list(searching._row_groups(index, index.snapshot()))
    assert len(found) == 3
    return found


def test_look_alikes_are_left_out_and_counted(index: Index, segments: list[dict[str, Any]]) -> None:
    """Against the plain loop over ranked pairs."""
    same = 0.8
    scores, truth = scores_of(segments, 3), {s["segment_id"]: s for s in segments}
    ranked = sorted(scores, key=lambda s: -scores[s])
    unit = {s: np.asarray(truth[s]["embedding"], np.float64) for s in ranked}
    unit = {s: v / np.linalg.norm(v) for s, v in unit.items()}
    kept: list[str] = []
    for s in ranked:
        if all(unit[s] @ unit[k] < same for k in kept):
            kept.append(s)
    found = search(index, query(3), 5, None, same)
    assert [hit.segment_id for hit in found.hits] == kept[:5]
    everything = search(index, query(3), 1000, None, same)
    assert sum(1 + hit.n_similar for hit in everything.hits) == len(segments)
    assert len(everything.hits) == len(kept) < len(segments)


def test_where_on_columns_of_segments_and_videos(index: Index, segments: list[dict[str, Any]]) -> None:
    found = search(index, query(2), 1000, "start_s >= 3 AND name < '010.mp4' AND n_frames = 2", NO_SUPPRESSION)
    wanted = [s for s in segments if s["start_s"] >= 3 and s["number"] < 10 and s["n_frames"] == 2]
    assert {hit.segment_id for hit in found.hits} == {s["segment_id"] for s in wanted}
    assert found.n_searched == len(wanted) == 10
    assert search(index, query(2), 5, "name = 'none'", NO_SUPPRESSION).hits == ()


def test_what_cannot_be_searched_is_said(index: Index, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no column 'colour'"):
        search(index, query(1), 1, "colour = 1", 1.0)
    with pytest.raises(UsageError, match=r"shape \(3,\) was given; expected \(7,\)"):
        search(index, np.ones(3, np.float32), 1, None, 1.0)
    with pytest.raises(UsageError, match="no vectors yet"):
        encoder_of(Index.create(str(tmp_path / "empty")), None, None)
    with pytest.raises(UsageError, match="were made by tiny@1, but the encoder here is builtin@"):
        encoder_of(index, "builtin", None)


def test_an_empty_index_has_no_hits(tmp_path: Path) -> None:
    index = Index.create(str(tmp_path / "index"), ENCODER)
    found = search(index, query(1), 5, None, 1.0)
    assert (found.hits, found.n_searched) == ((), 0)
    assert isinstance(index.read("segments"), pa.Table)
