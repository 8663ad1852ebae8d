"""The driver's pen: it cuts videos into items before the work, and turns receipts into commits after it."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import CLIPS_PER_ITEM, DescribeSetup, Recipe
from pipeline.index.commits import commit
from pipeline.index.drops import Drops, drop_everywhere
from pipeline.index.schemas import table_of
from pipeline.index.snapshot import Encoder as IndexEncoder
from pipeline.index.snapshot import Index
from pipeline.index.staging import read_item, staged_path
from pipeline.items.evidence import Questions
from pipeline.items.item import Failure, Item, Probed, Receipt, Source, cut_into_items
from pipeline.items.stored_clips import again_items, answer_items
from pipeline.ledger import ledger
from pipeline.ledger.plan import Plan, Todo
from pipeline.ledger.prepare import Prepared
from pipeline.ledger.run_report import Stopwatch
from pipeline.types import Status

T = TypeVar("T")

_ROWS_AT_ONCE = 4096
"""Rows of the ledger, or clips whose stored rows are read, that lie in memory together."""

_ROWS_A_COMMIT = 16_384
"""A commit holds its rows several times over: what only the ledger gets goes in several."""


@dataclass
class Work:
    """One video on its way through a wave."""

    listed: dict[str, Any]
    todo: Todo
    probed: Probed | None = None
    before: dict[str, Any] | None = None
    items: list[Item] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    answers: list[Receipt] = field(default_factory=list)

    @property
    def source(self) -> Source:
        return Source(*(self.listed[name] for name in ("video_id", "uri", "path", "version")))


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


class Writer:
    """The driver's pen: it alone turns receipts into commits."""

    def __init__(
        self,
        index: Index,
        prepared: Prepared,
        recipe: Recipe,
        run_id: str,
        watch: Stopwatch,
        check_lock: Callable[[], None],
    ) -> None:
        self.index, self.prepared, self.recipe, self.run_id, self.watch = index, prepared, recipe, run_id, watch
        self.n_failed = 0
        self.check_lock = check_lock
        self._encoder = IndexEncoder(prepared.encoder.identity.id, prepared.encoder.embedding_width)
        self._changes_encoder = index.snapshot().encoder not in (None, self._encoder)
        self._held = _Step()

    def begin(self, todos: Sequence[Todo]) -> list[Work]:
        """Videos taken up together; work on stored clips needs the ledger's row beside the listing's."""
        listed = self.prepared.listing.table.take([todo.row for todo in todos]).to_pylist()
        again = [row["video_id"] for row, todo in zip(listed, todos, strict=True) if todo.mode == "again"]
        known = self._ledger_rows(again)
        return [Work(row, todo, before=known.get(row["video_id"])) for row, todo in zip(listed, todos, strict=True)]

    def setup(self) -> DescribeSetup:
        """What describe workers build themselves from."""
        prepared, config = self.prepared, self.prepared.config
        return DescribeSetup(
            model=prepared.model.identity,
            encoder=prepared.encoder.identity,
            thresholds=prepared.thresholds,
            recipe=self.recipe,
            prune=config.prune,
            p=config.p,
            max_new_tokens=config.max_new_tokens,
            keep_frames=config.keep_frames,
            device=config.device,
            run_id=self.run_id,
        )

    def cut(self, work: Sequence[Work]) -> None:
        """The items of each video, before any question on the whole of it."""
        for w in work:
            if w.todo.mode == "index" and w.probed is not None and w.probed.failure is None:
                w.items = cut_into_items(w.probed, w.todo.targets, self.recipe.fingerprints, CLIPS_PER_ITEM)
        targets = {w.source.video_id: [t for t in w.todo.targets if not t.asks_video] for w in work}
        again = [w for w in work if w.todo.mode == "again" and targets[w.source.video_id]]
        for w, clips, segments in self.stored(again):
            mine = targets[w.source.video_id]
            w.items = again_items(w.source, clips, segments, mine, self.recipe.fingerprints, CLIPS_PER_ITEM)

    def questions(self, work: Sequence[Work], embedded: Callable[[], Questions]) -> Iterator[Item]:
        """Questions on a whole video that its own items could not answer: it has several, or its clips are stored."""
        targets = {w.source.video_id: [t for t in w.todo.targets if t.asks_video] for w in work}
        asked = [w for w in work if targets[w.source.video_id]]
        long = (
            w for w in asked if w.todo.mode == "index" and len(w.items) > 1 and any(r.is_staged for r in w.receipts)
        )
        stored = self.stored([w for w in asked if w.todo.mode == "again"])
        for w, clips, segments in chain(((w, *self._staged_rows(w)) for w in long), stored):
            vectors = embedded().vectors
            mine = {target: vectors[target] for target in targets[w.source.video_id]}
            yield from answer_items(w.source, clips, segments, mine, self.recipe.fingerprints)

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

    def commit_wave(self, work: Sequence[Work]) -> dict[str, int]:
        """One commit of finished videos; returns how many came out with which status."""
        outcomes = [
            ledger.Outcome(
                w.listed, w.todo, w.probed, w.items, w.receipts, w.answers, w.before, self.recipe.fingerprints
            )
            for w in work
        ]
        rows = [ledger.video_record(outcome, self.run_id) for outcome in outcomes]
        errors = [record for outcome in outcomes for record in ledger.error_records(outcome, self.run_id)]
        receipts = [r for w in work for r in (*w.receipts, *w.answers)]
        for w in work:
            if w.probed is not None:
                self.watch.add("probe", w.probed.seconds)
        for receipt in receipts:
            for stage, seconds in receipt.seconds.items():
                self.watch.add(stage, seconds)
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

    def stored(self, work: Sequence[Work]) -> Iterator[tuple[Work, pa.Table, pa.Table]]:
        """Each video with its rows of `clips` and `segments` in the index, read for many videos at once."""
        group, n_clips = list[Work](), 0
        for w in [*work, None]:
            mine = w.before["n_clips"] or 0 if w is not None and w.before is not None else 0
            if group and (w is None or n_clips + mine > _ROWS_AT_ONCE):
                wanted = pc.field("video_id").isin([g.source.video_id for g in group])
                clips, segments = (self.index.read(table, filter=wanted) for table in ("clips", "segments"))
                for g in group:
                    of_video = pc.field("video_id") == g.source.video_id
                    yield g, clips.filter(of_video), segments.filter(of_video)
                group, n_clips = [], 0
            if w is not None:
                group.append(w)
                n_clips += mine

    def _staged_rows(self, w: Work) -> tuple[pa.Table, pa.Table]:
        keys = [receipt.item_key for receipt in w.receipts if receipt.is_staged]
        staged = [read_item(self.index.storage, staged_path(key)) for key in keys]
        return pa.concat_tables(s["clips"] for s in staged), pa.concat_tables(s["segments"] for s in staged)

    def _ledger_table(self, ids: Collection[str]) -> pa.Table:
        return (
            self.index.read("videos", filter=pc.field("video_id").isin(list(ids))) if ids else ledger.videos_table([])
        )

    def _ledger_rows(self, ids: Collection[str]) -> dict[str, dict[str, Any]]:
        return {row["video_id"]: row for row in self._ledger_table(ids).to_pylist()}


def _parts(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (rows[first : first + size] for first in range(0, len(rows), size))


def _superseded(work: Sequence[Work], outcomes: Sequence[ledger.Outcome]) -> Drops:
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
