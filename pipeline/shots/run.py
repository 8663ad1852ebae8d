"""Which videos still lack their shots, and the pass that finds them: staged one by one, committed some at a time."""

import itertools
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.archive.recorded import refuse_strangers
from pipeline.archive.recorded_file import as_indexed
from pipeline.decoding import shots as detector
from pipeline.decoding.decoder import Decoder
from pipeline.errors import VIDEO_ERRORS, UsageError, VideoError
from pipeline.index import staging
from pipeline.index.commits import commit, roll_forward
from pipeline.index.lock import index_lock
from pipeline.index.runs import new_run_id, record_run, recorded_roots, videos_by_status
from pipeline.index.snapshot import Index, storage_trouble
from pipeline.index.tables import ERRORS, SHOTS
from pipeline.index.where import Where
from pipeline.reading.search import filterable_schema
from pipeline.types import Bounds, digest

STAGE_VERSION = 1
"""Raised by hand when the same frames would give other shots."""
MAX_ATTEMPTS = 3  # runs, after which a transient failure is left alone too
_VIDEOS_PER_COMMIT = 200
_COLUMNS = ["video_id", "uri", "root", "version", "status", "duration_s"]

Say = Callable[[str], None]
Record = dict[str, Any]


@dataclass(frozen=True)
class ShotsReport:
    """What a pass did."""

    run_id: str
    n_done: int
    n_failed: int
    n_there: int  # videos that had their shots already, or fail for good
    hours: float  # of video looked at
    seconds: float  # of decoding, over all workers


def fingerprint() -> str:
    """The recipe of shots: everything that decides them."""
    values = (detector.SIZE, detector.LEAST, detector.TIMES, detector.SHARE, detector.AROUND, detector.SHORTEST)
    return digest("shots", str(STAGE_VERSION), *map(repr, values))


def find_all_shots(index: Index, where: str | None, redo: bool, workers: int | None, say: Say) -> ShotsReport:
    """Find the shots of every indexed video that has none of this recipe yet; `redo` finds all of them again.

    Stopped anywhere, the next run goes on: what was staged is kept. A video that cannot be read is a row in `errors`
    with the stage shots, and is tried again as its error class says. IndexLocked while another run writes.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"--workers {workers} given; expected at least 1")
    started_at, run_id = datetime.now(UTC), new_run_id()
    with storage_trouble(index), index_lock(index.storage) as check_lock:
        roll_forward(index)
        todo, n_there = _todo(index, where, redo)
        done, failed, hours, seconds = 0, 0, 0.0, 0.0
        worked = _worked(index, todo, run_id, workers)
        while wave := list(itertools.islice(worked, _VIDEOS_PER_COMMIT)):
            check_lock()
            _commit(index, wave, run_id)
            failed += sum(found.error is not None for found in wave)
            done += sum(found.error is None for found in wave)
            hours += sum(found.video["duration_s"] or 0.0 for found in wave) / 3600
            seconds += sum(found.seconds for found in wave)
            say(f"shots: {done + failed:,} of {len(todo):,} videos, {failed:,} failed")
        if todo:
            stages = [{"stage": "shots", "items": done + failed, "seconds": seconds}]
            row = {"run_id": run_id, "started_at": started_at, "command": "shots", "config": "{}", "stages": stages}
            record_run(index, {**row, "counts": videos_by_status(index)})
    return ShotsReport(run_id, done, failed, n_there, hours, seconds)


@dataclass(frozen=True)
class _Found:
    video: Record
    key: str | None  # of its staged rows
    error: VideoError | None
    seconds: float


def _todo(index: Index, where: str | None, redo: bool) -> tuple[list[Record], int]:
    """Videos to look at, and how many need not be."""
    videos = index.read("videos", filter=pc.field("status").isin(["indexed", "partial"]))
    if where is not None:
        condition = Where(where, filterable_schema("videos"))
        videos = videos.filter(pa.array(condition.keep(videos.select(filterable_schema("videos").names))))
    there = index.read("shots", ["video_id", "video_version", "fingerprint"], pc.field("shot_index") == 0).to_pylist()
    done = {(row["video_id"], row["video_version"]) for row in there if row["fingerprint"] == fingerprint()}
    tried: dict[tuple[str, str], list[Record]] = {}
    columns = ["video_id", "version", "transient", "error_class"]
    for row in index.read("errors", columns, pc.field("stage") == "shots").to_pylist():
        tried.setdefault((row["video_id"], row["version"]), []).append(row)
    rows = videos.select(_COLUMNS).to_pylist()
    todo = [row for row in rows if redo or _is_owed((row["video_id"], row["version"]), done, tried)]
    if todo:
        refuse_strangers(index.url, ((row["uri"], row["root"]) for row in todo), recorded_roots(index))
    return todo, len(rows) - len(todo)


def _is_owed(
    key: tuple[str, str], done: set[tuple[str, str]], tried: Mapping[tuple[str, str], Sequence[Record]]
) -> bool:
    failures = tried.get(key, ())
    return key not in done and len(failures) < MAX_ATTEMPTS and all(row["transient"] for row in failures)


def _worked(index: Index, todo: Sequence[Record], run_id: str, workers: int | None) -> Iterator[_Found]:
    """Each video looked at by one of a few decode children; as many as there are cores unless told otherwise."""
    n = min(workers or len(os.sched_getaffinity(0)), max(1, len(todo)))
    decoders, own = list[Decoder](), threading.local()
    staged = staging.staged_keys(index.storage)

    def start() -> None:
        own.decoder = Decoder(Bounds())
        decoders.append(own.decoder)

    with ThreadPoolExecutor(n, initializer=start) as pool:
        try:
            for first in range(0, len(todo), 4 * n):  # so that little is read ahead of what is committed
                part = todo[first : first + 4 * n]
                yield from pool.map(lambda video: _look(index, video, run_id, own.decoder, staged), part)
        finally:
            pool.shutdown(cancel_futures=True)
            for decoder in decoders:
                decoder.close()


def _look(index: Index, video: Record, run_id: str, decoder: Decoder, staged: set[str]) -> _Found:
    key = digest("shots", video["video_id"], video["version"], fingerprint())
    started = datetime.now(UTC)
    if key in staged:
        return _Found(video, key, None, 0.0)
    try:
        with as_indexed(video["uri"], video["version"]) as (path, fill):
            begins, n_frames, end_s = decoder.shots(path, fill)
    except VideoError as error:
        return _Found(video, None, error, (datetime.now(UTC) - started).total_seconds())
    rows = _rows(video, begins, n_frames, end_s, run_id)
    staging.stage(index.storage, key, staging.encode_item({"shots": pa.Table.from_pylist(rows, schema=SHOTS.schema())}))
    return _Found(video, key, None, (datetime.now(UTC) - started).total_seconds())


def _rows(video: Record, begins: Sequence[detector.Begin], n_frames: int, end_s: float, run_id: str) -> list[Record]:
    """Shots that tile the video: each ends where the next begins."""
    ends = [(begin.frame, begin.start_s) for begin in begins[1:]] + [(n_frames, end_s)]
    made = {"fingerprint": fingerprint(), "run_id": run_id, "indexed_at": datetime.now(UTC)}
    of = {"video_id": video["video_id"], "video_version": video["version"], "uri": video["uri"]}
    return [
        {**of, "shot_index": number, "start_s": begin.start_s, "end_s": stop_s, "start_frame": begin.frame}
        | {"end_frame": stop, "kind": "cut" if number else "start", "score": begin.score, **made}
        for number, (begin, (stop, stop_s)) in enumerate(zip(begins, ends, strict=True))
    ]


def _commit(index: Index, wave: Sequence[_Found], run_id: str) -> None:
    """New rows take the place of those the videos had."""
    errors = [_error(found.video, found.error, run_id) for found in wave if found.error is not None]
    keys = [found.key for found in wave if found.key is not None]
    drops = {"shots": [(found.video["video_id"], None) for found in wave if found.key is not None]}
    commit(index, keys, errors=pa.Table.from_pylist(errors, schema=ERRORS.schema()), drops=drops)


def _error(video: Record, error: VideoError, run_id: str) -> Record:
    name = type(error).__name__
    row = {name: video[name] for name in ("video_id", "uri", "version")}
    row |= {"clip_index": None, "stage": "shots", "error_class": name, "message": str(error)[:1000]}
    return row | {
        "transient": VIDEO_ERRORS[name].transient,
        "attempt": 1,
        "run_id": run_id,
        "at": datetime.now(UTC),
    }
