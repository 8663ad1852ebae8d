"""What became of videos turned into commits, beside the work: the only code of a run that changes tables."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Recipe
from pipeline.index.commits import commit
from pipeline.index.drops import Drops, drop_everywhere
from pipeline.index.snapshot import Encoder as IndexEncoder
from pipeline.index.snapshot import Index
from pipeline.index.tables import table_of
from pipeline.items.item import Failure
from pipeline.ledger import ledger
from pipeline.ledger.plan import Plan, Todo
from pipeline.ledger.prepare import Prepared
from pipeline.ledger.video_work import VideoWork
from pipeline.types import Status

T = TypeVar("T")
Count = Callable[[Mapping[str, int]], None]
"""Told how many videos a commit ended with which status."""

_ROWS_AT_ONCE = 4096
"""Rows of the ledger that lie in memory together."""

_ROWS_A_COMMIT = 16_384
"""A commit holds its rows several times over: what only the ledger gets goes in several."""


@dataclass(frozen=True)
class Pace:
    """A commit is made when so many videos are finished, or so long after the last."""

    videos: int = 1000
    seconds: float = 300.0


@dataclass(frozen=True)
class _Step:
    """What one commit takes."""

    inputs: list[str] = field(default_factory=list)
    videos: pa.Table = field(default_factory=lambda: ledger.videos_table([]))
    errors: pa.Table = field(default_factory=lambda: ledger.errors_table([]))
    drops: Drops = field(default_factory=dict)

    def __add__(self, other: "_Step") -> "_Step":
        tables = {*self.drops, *other.drops}
        drops = {table: [*self.drops.get(table, ()), *other.drops.get(table, ())] for table in tables}
        videos, errors = ([getattr(step, name) for step in (self, other)] for name in ("videos", "errors"))
        return _Step(self.inputs + other.inputs, pa.concat_tables(videos), pa.concat_tables(errors), drops)


class Committer:
    """Makes commits. `with Committer(...) as committer`: those handed to `finished` are made in a thread beside the
    work, one after the other, and the last at the end.
    """

    def __init__(
        self,
        index: Index,
        prepared: Prepared,
        recipe: Recipe,
        run_id: str,
        check_lock: Callable[[], None],
        pace: Pace,
    ) -> None:
        self.index, self.prepared, self.recipe, self.run_id = index, prepared, recipe, run_id
        self.n_failed = 0
        self.check_lock = check_lock
        self._pace = pace
        self._encoder = IndexEncoder(prepared.encoder.identity.id, prepared.encoder.embedding_width)
        self._changes_encoder = index.snapshot().encoder not in (None, self._encoder)
        self._held = _Step()
        self._finished: list[VideoWork] = []
        self._since = time.monotonic()
        self._thread = ThreadPoolExecutor(1, "commits")
        self._making: Future[dict[str, int]] | None = None

    def finished(self, video: VideoWork) -> None:
        """Hand over a video of which everything is done; a commit may begin with it."""
        self._finished.append(video)

    def beat(self, count: Count) -> None:
        """Begin a commit where one is due. Called often; waits only where twice a commit's videos have gathered."""
        is_late = time.monotonic() - self._since >= self._pace.seconds
        if not self._finished or not (is_late or len(self._finished) >= self._pace.videos):
            return
        if self._making is None or self._making.done() or len(self._finished) >= 2 * self._pace.videos:
            self._settle(count)
            self._begin()

    def commit_finished(self, count: Count) -> None:
        """Commit what is finished, and wait for it."""
        self._settle(count)
        if self._finished:
            self._begin()
            self._settle(count)

    def _settle(self, count: Count) -> None:
        """Wait for the commit that is being made; what stopped it is raised here."""
        if self._making is not None:
            making, self._making = self._making, None
            count(making.result())

    def _begin(self) -> None:
        videos, self._finished, self._since = self._finished, [], time.monotonic()
        self._making = self._thread.submit(self.commit_videos, videos)

    def commit_without_work(self, plan: Plan) -> None:
        """Refused by the listing, out of attempts, or gone: rows of the ledger that need no worker."""
        videos, errors = list[pa.Table](), list[dict[str, Any]]()
        for rows in _parts(plan.refused, _ROWS_AT_ONCE):
            listed = self.prepared.listing.table.take(rows).to_pylist()
            known, records = self._ledger_rows([row["video_id"] for row in listed]), []
            for row in listed:
                failure = Failure("list", row["refusal"], row["refusal_message"])
                before = known.get(row["video_id"])
                records.append(ledger.untouched_record(row, "failed", self.run_id, failure, 1, before))
                errors.append(ledger.error_record(row, failure, None, 1, self.run_id))
            videos.append(ledger.videos_table(records))
        spent = self.prepared.listing.table["video_id"].take(pa.array(plan.quarantine, pa.int64()))
        settled: list[tuple[Status, list[str]]] = [("quarantined", spent.to_pylist()), ("deleted", list(plan.deleted))]
        for status, ids in settled:
            videos += [
                ledger.changed_status(self._ledger_table(part), status, self.run_id)
                for part in _parts(ids, _ROWS_AT_ONCE)
            ]
        self.n_failed += len(plan.refused)
        drops = drop_everywhere(error["video_id"] for error in errors)
        self._commit(
            _Step([], pa.concat_tables([ledger.videos_table([]), *videos]), ledger.errors_table(errors), drops)
        )

    def commit_pending(self, left: Sequence[Todo]) -> None:
        """Videos without rows wait as `pending`; one that has rows keeps its row until its turn comes."""
        for some in _parts(left, _ROWS_A_COMMIT):
            self._commit(_Step(videos=pa.concat_tables(map(self._left, _parts(some, _ROWS_AT_ONCE)))))

    def _left(self, todos: Sequence[Todo]) -> pa.Table:
        listed = self.prepared.listing.table.take([todo.row for todo in todos]).to_pylist()
        known = self._ledger_rows([row["video_id"] for row in listed])
        records = (
            ledger.left_record(row, known.get(row["video_id"]), todo, self.run_id)
            for row, todo in zip(listed, todos, strict=True)
        )
        return ledger.videos_table([record for record in records if record is not None])

    def commit_videos(self, work: Sequence[VideoWork]) -> dict[str, int]:
        """One commit of finished videos; returns how many ended with which status."""
        outcomes = [
            ledger.Outcome(
                w.listed, w.todo, w.probed, w.items, w.receipts, w.answers, w.before, self.recipe.fingerprints
            )
            for w in work
        ]
        rows = [ledger.video_record(outcome, self.run_id) for outcome in outcomes]
        errors = [record for outcome in outcomes for record in ledger.error_records(outcome, self.run_id)]
        inputs = [r.item_key for outcome in outcomes for r in ledger.kept_receipts(outcome) if r.is_staged]
        videos = ledger.videos_table(rows)
        self._commit(_Step(inputs, videos, ledger.errors_table(errors), _superseded(work, outcomes)))
        statuses = Counter(row["status"] for row in rows)
        self.n_failed += statuses["failed"] + statuses["quarantined"]
        return dict(statuses)

    def finish(self) -> None:
        """Commit what was held back: an index changes its encoder in one step, and keeps no vector of the old one."""
        if not self._changes_encoder:
            return
        known = self.index.read("videos", filter=pc.field("status").isin(["indexed", "partial"]))
        held, self._held = self._held, _Step()
        # What was not redone (another root, --limit) loses its vectors all the same, and waits for its turn.
        rest = known.filter(pc.invert(pc.is_in(known["video_id"], held.videos["video_id"].combine_chunks())))
        waiting = ledger.changed_status(rest, "pending", self.run_id)
        everything = self.index.read("videos", ["video_id"])["video_id"].to_pylist()
        drops = {t: [*pairs, *held.drops.get(t, ())] for t, pairs in drop_everywhere(everything).items()}
        self._commit_now(replace(held, videos=pa.concat_tables([held.videos, waiting]), drops=drops))

    def _commit(self, step: _Step) -> None:
        if self._changes_encoder:
            self._held = self._held + step
        else:
            self._commit_now(step)

    def _commit_now(self, step: _Step) -> None:
        if not (step.inputs or len(step.videos) or len(step.errors)):
            return
        self.check_lock()
        commit(self.index, step.inputs, step.videos, step.errors, step.drops, self._encoder)
        pa.default_memory_pool().release_unused()  # else what many commits freed stays with this process

    def _ledger_table(self, ids: Collection[str]) -> pa.Table:
        return (
            self.index.read("videos", filter=pc.field("video_id").isin(list(ids))) if ids else ledger.videos_table([])
        )

    def _ledger_rows(self, ids: Collection[str]) -> dict[str, dict[str, Any]]:
        return {row["video_id"]: row for row in self._ledger_table(ids).to_pylist()}


def _parts(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (rows[first : first + size] for first in range(0, len(rows), size))


def _superseded(work: Sequence[VideoWork], outcomes: Sequence[ledger.Outcome]) -> Drops:
    """Rows that new ones take the place of. What failed leaves the old rows where they are."""
    again = [w for w in work if w.todo.mode == "index" and w.todo.reason != "new"]
    renewed = [w for w in again if any(r.is_staged for r in w.receipts)]
    drops: dict[str, list[tuple[str, str | None]]] = {
        table: list(pairs) for table, pairs in drop_everywhere(w.source.video_id for w in renewed).items()
    }
    for outcome in (outcome for outcome in outcomes if outcome.todo.mode == "again"):
        for target in ledger.targets_made(outcome):
            drops[table_of(target)].append((outcome.listed["video_id"], target.subkey))
    return drops
