"""Text to segments: one pass over the vectors of an index, whatever its size, in bounded memory.

Row groups are read and scored by a few threads; only the best candidates are kept. Scores are exact: float16 vectors
against the query in fp32. Legend: n rows of a row group, D embedding width, c candidates.
"""

import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.archive.labels import link_to, path_in_root
from pipeline.config import Thresholds
from pipeline.errors import UsageError
from pipeline.index.snapshot import Index, Snapshot
from pipeline.index.tables import table_schema
from pipeline.index.thresholds import read_thresholds
from pipeline.index.where import Where
from pipeline.items.evidence import FloatArray
from pipeline.models.checkpoints import ModelFiles, fetch, resolve_model, resolve_thresholds

CANDIDATES_PER_HIT = 50
"""Kept for each hit asked for, so that suppressed look-alikes leave enough."""
_BLOCK_ROWS = 512  # rows turned to fp32 at a time: 1.5 MB at D = 768, which a core's cache holds
_HALF_BITS = np.int32(-0x70002000)  # 0x8fffe000: a half's sign, exponent and fraction, where a single has its own
_HALF_SCALE = np.float32(2.0**112)  # what their exponents' biases differ by
_READERS = min(8, len(os.sched_getaffinity(0)))
_SHOWN = ("segment_id", "clip_id", "video_id", "start_s", "end_s", "best_frame_s")


@dataclass(frozen=True)
class Place:
    """A row group: path of its file, the file's footer, number in it."""

    path: str
    footer: pq.FileMetaData
    group: int

    def read(self, index: Index, columns: Sequence[str]) -> pa.Table:
        return index.row_group(self.path, self.footer, self.group, columns)


@dataclass(frozen=True)
class Hit:
    """One segment found. `z` compares across queries: standard deviations above the mean of all segments searched."""

    rank: int
    name: str
    start_s: float
    end_s: float
    score: float  # dot product of text and segment: the paper's relevance
    z: float
    n_similar: int  # segments ranked below it that look the same, and were left out for it
    uri: str
    video_id: str
    clip_id: str
    segment_id: str
    best_frame_s: float
    path: str  # of the video, below its root
    link: str  # the moment, for a player
    has_own_name: bool  # no other video of the index has its name
    weak: bool = False  # below the encoder's threshold for being about a text

    @property
    def label(self) -> str:
        """What tells its video apart for people: the name where that is enough, else the path."""
        return self.name if self.has_own_name else self.path


@dataclass(frozen=True)
class Found:
    """Hits, best first, among `n_searched` segments that satisfied the condition."""

    hits: tuple[Hit, ...]
    n_searched: int


@dataclass(frozen=True)
class _Scored:
    """The best rows of one row group: (c,), (c,), (c, D); and what all its rows sum to."""

    place: Place
    rows: npt.NDArray[np.int64]
    scores: FloatArray
    vectors: npt.NDArray[np.float16]
    n: int
    total: float
    squares: float


def search(index: Index, query: FloatArray, top: int, where: str | None, same: float) -> Found:
    """The `top` segments nearest to the unit vector `query` (D,), best first.

    `where` is a SQL condition on columns of segments and of their videos. Of segments whose vectors have a cosine of at
    least `same` only the best is a hit (above 1: all are). Raises UsageError for a bad condition.
    """
    return index.at_one_snapshot(lambda snapshot: _search(index, snapshot, query, top, where, same))


def as_caption(text: str) -> str:
    """What an encoder trained on captions is given for words to look for; a sentence is left as it is.

    "A photo of ..." is the wording CLIP was published with (arXiv 2103.00020, Sec. 3.1.4).
    """
    words = text.strip()
    return words if words.endswith((".", "?", "!")) else f"a photo of {words}"


def encoder_of(index: Index, given: str | None, thresholds_file: Path | None) -> tuple[ModelFiles, Thresholds]:
    """The encoder that made the index's vectors. `given` says where it is now; its content must be the same."""
    encoder = index.snapshot().encoder
    if encoder is None:
        raise UsageError(f"{index.url} holds no vectors yet: nothing was indexed")
    name, _, revision = encoder.encoder_id.rpartition("@")
    files = resolve_model(given or name, "encoder")
    if files.identity.revision != revision:
        raise UsageError(
            f"the vectors of {index.url} were made by {encoder.encoder_id}, but the encoder here is "
            f"{files.identity.id}; expected the same: --encoder says where it is"
        )
    fetch(files)
    stored = None if thresholds_file else read_thresholds(index, encoder.encoder_id)
    return files, stored or resolve_thresholds(files, thresholds_file)


def filterable_schema(table: str = "segments") -> pa.Schema:
    """What --where may name: columns of `table`, and those of the rows' videos that it lacks."""
    own = [f for f in table_schema(table, 1) if f.name != "thumbnail" and not pa.types.is_nested(f.type)]
    names = {f.name for f in own}
    videos = [f for f in table_schema("videos", 1) if f.name not in names and not pa.types.is_nested(f.type)]
    return pa.schema([*own, *videos])


def with_videos(rows: pa.Table, videos: pa.Table, names: Sequence[str]) -> pa.Table:
    """Columns `names` of `rows` and, where they lack one, of their videos; null for a video that is not among them."""
    at = pc.index_in(rows["video_id"], value_set=videos["video_id"].combine_chunks())
    return pa.table({name: rows[name] if name in rows.column_names else videos[name].take(at) for name in names})


def best_relevance(index: Index, column: str, queries: FloatArray) -> dict[str, FloatArray]:
    """The highest score of any segment for each video_id or clip_id (`column`): id -> (q,) for unit queries (q, D)."""
    return index.at_one_snapshot(lambda snapshot: _best_relevance(index, snapshot, column, queries))


def _best_relevance(index: Index, snapshot: Snapshot, column: str, queries: FloatArray) -> dict[str, FloatArray]:
    best: dict[str, FloatArray] = {}
    for place in _row_groups(index, snapshot):
        rows = place.read(index, [column, "embedding"])
        scores = dots(_halves(rows, queries.shape[1]), queries)  # (n, q)
        for key, mine in zip(rows[column].to_pylist(), scores, strict=True):
            best[key] = np.maximum(best[key], mine) if key in best else mine
    return best


def _search(index: Index, snapshot: Snapshot, query: FloatArray, top: int, where: str | None, same: float) -> Found:
    _refuse_other_width(snapshot, query)
    filtering = None if where is None else _Filter(where, index.read_at(snapshot, "videos"))
    keep = max(1000, CANDIDATES_PER_HIT * top)
    best: list[_Scored] = []
    n, total, squares = 0, 0.0, 0.0
    with ThreadPoolExecutor(_READERS) as pool:
        tasks = (pool.submit(_score, index, p, query, keep, filtering) for p in _row_groups(index, snapshot))
        for scored in _in_order(tasks, 2 * _READERS):
            n, total, squares = n + scored.n, total + scored.total, squares + scored.squares
            best = _merged([*best, scored], keep)
    mean = total / max(1, n)
    deviation = max(squares / max(1, n) - mean * mean, 0.0) ** 0.5
    return Found(tuple(_hits(index, snapshot, best, top, same, mean, deviation)), n)


def _refuse_other_width(snapshot: Snapshot, query: FloatArray) -> None:
    if snapshot.encoder is not None and query.shape != (snapshot.encoder.dim,):
        raise UsageError(f"a query of shape {query.shape} was given; expected ({snapshot.encoder.dim},)")


def _row_groups(index: Index, snapshot: Snapshot) -> Iterator[Place]:
    for path in snapshot.paths("segments"):
        footer = index.footer(path)
        for group in range(footer.num_row_groups):
            yield Place(path, footer, group)


def _in_order(tasks: Iterator[Future[_Scored]], ahead: int) -> Iterator[_Scored]:
    """Results of tasks, of which no more than `ahead` are under way."""
    waiting = list(islice(tasks, ahead))
    while waiting:
        yield waiting.pop(0).result()
        waiting += islice(tasks, 1)


def _score(index: Index, place: Place, query: FloatArray, keep: int, filtering: "_Filter | None") -> _Scored:
    """Score one row group: its embeddings alone are read, and the columns the condition names."""
    halves = _halves(place.read(index, ["embedding"]), len(query))  # (n, D)
    scores = dots(halves, query[None])[:, 0]
    rows = np.arange(len(scores)) if filtering is None else np.flatnonzero(filtering.keep(index, place))
    mine = scores[rows].astype(np.float64)
    if len(rows) > keep:
        rows = rows[np.argpartition(-scores[rows], keep)[:keep]]
    return _Scored(place, rows, scores[rows], halves[rows], len(mine), float(mine.sum()), float(mine @ mine))


def dots(halves: npt.NDArray[np.float16], queries: FloatArray) -> FloatArray:
    """Finite halves (n, D) against queries (q, D) no longer than 1 -> (n, q), in fp32, a block at a time.

    The bits of a half, moved to where a single has its own, are the half times 2^-112; the queries are scaled up by as
    much. That is exact, and six times as fast as NumPy's own conversion.
    """
    scores = np.empty((len(halves), len(queries)), np.float32)
    scaled, bits = np.ascontiguousarray((queries * _HALF_SCALE).T), halves.view(np.int16)
    buffer = np.empty((_BLOCK_ROWS, halves.shape[1]), np.int32)
    for first in range(0, len(halves), _BLOCK_ROWS):
        block = bits[first : first + _BLOCK_ROWS]
        moved = buffer[: len(block)]
        np.copyto(moved, block)  # the sign is spread over the upper half
        np.left_shift(moved, 13, out=moved)
        np.bitwise_and(moved, _HALF_BITS, out=moved)
        np.dot(moved.view(np.float32), scaled, out=scores[first : first + len(block)])
    return scores


def _halves(rows: pa.Table, dim: int) -> npt.NDArray[np.float16]:
    """The embedding column as an array (n, D), not copied where it is in one piece."""
    column = rows["embedding"]
    whole = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    flat: npt.NDArray[np.float16] = whole.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(-1, dim)


class _Filter:
    """A condition on segments, with columns of their videos joined in."""

    def __init__(self, text: str, videos: pa.Table) -> None:
        self._schema = filterable_schema()
        self._where = Where(text, self._schema)
        self._lock = threading.Lock()  # one database for all readers
        self._videos = videos

    def keep(self, index: Index, place: Place) -> npt.NDArray[np.bool_]:
        """Which rows of a row group satisfy the condition, (n,)."""
        own = {name for name in self._where.columns if name in table_schema("segments", 1).names}
        rows = with_videos(place.read(index, sorted(own | {"video_id"})), self._videos, self._where.columns)
        columns = {field.name: pa.nulls(len(rows), field.type) for field in self._schema}
        columns |= {name: rows[name] for name in self._where.columns}
        with self._lock:
            return self._where.keep(pa.table(columns))


def _merged(parts: list[_Scored], keep: int) -> list[_Scored]:
    """Only what can still be among the best `keep` of all parts."""
    scores = np.concatenate([part.scores for part in parts])
    if len(scores) <= 2 * keep:
        return parts
    floor = np.partition(scores, len(scores) - keep)[len(scores) - keep]
    kept = []
    for part in parts:
        on = part.scores >= floor
        if on.any():
            kept.append(_Scored(part.place, part.rows[on], part.scores[on], part.vectors[on], 0, 0.0, 0.0))
    return kept


def _hits(
    index: Index, snapshot: Snapshot, parts: list[_Scored], top: int, same: float, mean: float, deviation: float
) -> Iterator[Hit]:
    candidates = [(part.place, int(row)) for part in parts for row in part.rows]
    if not candidates:
        return
    scores = np.concatenate([part.scores for part in parts])
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))  # ties: as they stand in the index
    vectors = np.concatenate([part.vectors for part in parts])[order].astype(np.float32)
    chosen = _without_look_alikes(vectors, top, same)
    shown = [_row(index, *candidates[order[at]]) for at, _ in chosen]
    named = index.read_at(snapshot, "videos", ["video_id", "name", "uri", "root"]).to_pylist() if shown else []
    videos = {video["video_id"]: video for video in named}
    n_named = Counter(video["name"] for video in named)
    for rank, ((at, n_similar), row) in enumerate(zip(chosen, shown, strict=True), start=1):
        score, video = float(scores[order[at]]), videos[row["video_id"]]
        z = (score - mean) / deviation if deviation > 0 else 0.0
        yield Hit(
            rank=rank,
            name=video["name"],
            uri=video["uri"],
            score=score,
            z=z,
            n_similar=n_similar,
            path=path_in_root(video["uri"], video["root"]),
            link=link_to(video["uri"], row["start_s"]),
            has_own_name=n_named[video["name"]] == 1,
            **row,
        )


def _without_look_alikes(vectors: FloatArray, top: int, same: float) -> list[tuple[int, int]]:
    """(place, look-alikes left out for it) of the first `top` of ranked vectors (c, D) that are not alike."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / np.maximum(lengths, 1e-12)
    chosen: dict[int, int] = {}
    for at, unit in enumerate(units):
        if chosen and float((cosines := units[list(chosen)] @ unit).max()) >= same:
            chosen[list(chosen)[int(cosines.argmax())]] += 1
        elif len(chosen) < top:
            chosen[at] = 0
        else:
            break
    return list(chosen.items())


def _row(index: Index, place: Place, row: int) -> Mapping[str, Any]:
    record: Mapping[str, Any] = place.read(index, _SHOWN).slice(row, 1).to_pylist()[0]
    return record
