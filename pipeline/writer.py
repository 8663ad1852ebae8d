"""The driver's pen: it cuts videos into items before the work, and turns receipts into commits after it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import ledger
from pipeline.again import again_items, answer_items
from pipeline.commits import Drops, commit, drop_everywhere
from pipeline.config import CLIPS_PER_ITEM, DescribeSetup, Recipe
from pipeline.evidence import FloatArray
from pipeline.index import Encoder as IndexEncoder
from pipeline.index import Index
from pipeline.items import Failure, Item, Probed, Receipt, Source, cut_into_items
from pipeline.plan import Plan, Todo
from pipeline.prepare import Prepared
from pipeline.report import Stopwatch
from pipeline.staging import decode_item, staged_path

QuestionVectors = Callable[[], Mapping[str, FloatArray]]


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
    rows: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    drops: Drops = field(default_factory=dict)

    def __add__(self, other: "_Step") -> "_Step":
        tables = {*self.drops, *other.drops}
        drops = {table: [*self.drops.get(table, ()), *other.drops.get(table, ())] for table in tables}
        return _Step(self.inputs + other.inputs, self.rows + other.rows, self.errors + other.errors, drops)


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

    def begin(self, todo: Todo) -> Work:
        """One video taken up; work on stored clips needs the ledger's row beside the listing's."""
        listed: dict[str, Any] = self._listed(todo.row)
        return Work(listed, todo, before=self._ledger_row(listed["video_id"]) if todo.mode == "again" else None)

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

    def items_of(self, w: Work) -> list[Item]:
        """The items of a video, before any question on the whole of it."""
        if w.todo.mode == "again":
            stages = [s for s in w.todo.stages if not s.endswith(":video")]
            if not stages:
                return []
            clips, segments = self.stored_rows(w)
            return again_items(w.source, clips, segments, stages, self.recipe.fingerprints, CLIPS_PER_ITEM)
        if w.probed is None or w.probed.failure is not None:
            return []
        return cut_into_items(w.probed, w.todo.stages, self.recipe.fingerprints, CLIPS_PER_ITEM)

    def questions_of(self, w: Work, question_vectors: QuestionVectors) -> list[Item]:
        """Questions on a whole video that its own items could not answer: it has several, or its clips are stored."""
        stages = [s for s in w.todo.stages if s.startswith("answer:") and s.endswith(":video")]
        staged_ok = [r for r in w.receipts if r.is_staged]
        if not stages or (w.todo.mode == "index" and (len(w.items) < 2 or not staged_ok)):
            return []
        clips, segments = self.stored_rows(w) if w.todo.mode == "again" else self._staged_rows(staged_ok)
        vectors = question_vectors()
        questions = {stage: vectors[stage] for stage in stages}
        return answer_items(w.source, clips, segments, questions, self.recipe.fingerprints)

    def commit_without_work(self, plan: Plan) -> None:
        """Refused by the listing, out of attempts, or gone: rows of the ledger that need no worker."""
        listing, rows, errors = self.prepared.listing.table, [], []
        for at in plan.refused:
            listed = self._listed(at)
            failure = Failure("list", listed["refusal"], listed["refusal_message"])
            rows.append(ledger.untouched_record(listed, "failed", self.run_id, failure, attempts=1))
            errors.append(ledger.error_record(listed, failure, None, 1, self.run_id))
        for at in plan.quarantine:
            before = self._ledger_row(listing["video_id"][at].as_py())
            rows.append(ledger.changed_status(before, "quarantined", self.run_id))
        if plan.deleted:
            gone = self.index.read("videos", filter=pc.field("video_id").isin(list(plan.deleted))).to_pylist()
            rows += [ledger.changed_status(before, "deleted", self.run_id) for before in gone]
        self.n_failed += len(plan.refused)
        self._commit(_Step([], rows, errors, drop_everywhere(error["video_id"] for error in errors)))

    def commit_pending(self, left: Sequence[Todo]) -> None:
        """Videos without rows wait as `pending`; one that has rows keeps its row until its turn comes."""
        ids = [self.prepared.listing.table["video_id"][todo.row].as_py() for todo in left]
        known = {r["video_id"]: r for r in self.index.read("videos", filter=pc.field("video_id").isin(ids)).to_pylist()}
        rows = (
            ledger.left_record(self._listed(todo.row), known.get(video_id), todo, self.run_id)
            for video_id, todo in zip(ids, left, strict=True)
        )
        self._commit(_Step(rows=[row for row in rows if row is not None]))

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
        self._commit(_Step(inputs, rows, errors, _superseded(work, outcomes)))
        statuses = Counter(row["status"] for row in rows)
        self.n_failed += statuses["failed"] + statuses["quarantined"]
        return dict(statuses)

    def finish(self) -> None:
        """Commit what was held back: an index changes its encoder in one step, and keeps no vector of the old one."""
        if not self._changes_encoder:
            return
        known = self.index.read("videos")
        old = drop_everywhere(known["video_id"].to_pylist())
        held, self._held = self._held, _Step()
        redone = {row["video_id"] for row in held.rows}
        # What was not redone (another root, --limit) loses its vectors all the same, and waits for its turn.
        rest = known.filter(pc.field("status").isin(["indexed", "partial"])).to_pylist()
        waiting = [ledger.changed_status(row, "pending", self.run_id) for row in rest if row["video_id"] not in redone]
        drops = {table: [*pairs, *held.drops.get(table, ())] for table, pairs in old.items()}
        self._commit_now(replace(held, rows=held.rows + waiting, drops=drops))

    def _commit(self, step: _Step) -> None:
        if self._changes_encoder:
            self._held = self._held + step
        else:
            self._commit_now(step)

    def _commit_now(self, step: _Step) -> None:
        if not (step.inputs or step.rows or step.errors):
            return
        self.check_lock()
        rows, errors = ledger.videos_table(step.rows), ledger.errors_table(step.errors)
        commit(self.index, step.inputs, rows, errors, step.drops, self._encoder)

    def stored_rows(self, w: Work) -> tuple[pa.Table, pa.Table]:
        mine = pc.field("video_id") == w.source.video_id
        return self.index.read("clips", filter=mine), self.index.read("segments", filter=mine)

    def _staged_rows(self, receipts: Sequence[Receipt]) -> tuple[pa.Table, pa.Table]:
        staged = [decode_item(self.index.storage.read_bytes(staged_path(r.item_key))) for r in receipts]
        return pa.concat_tables(s["clips"] for s in staged), pa.concat_tables(s["segments"] for s in staged)

    def _listed(self, row: int) -> dict[str, Any]:
        listed: dict[str, Any] = self.prepared.listing.table.slice(row, 1).to_pylist()[0]
        return listed

    def _ledger_row(self, video_id: str) -> dict[str, Any]:
        row: dict[str, Any] = self.index.read("videos", filter=pc.field("video_id") == video_id).to_pylist()[0]
        return row


def _superseded(work: Sequence[Work], outcomes: Sequence[ledger.Outcome]) -> Drops:
    """Rows that new ones take the place of. What failed leaves the old rows where they are."""
    again = [w for w in work if w.todo.mode == "index" and w.todo.reason != "new"]
    renewed = [w for w in again if any(r.is_staged for r in w.receipts)]
    drops: dict[str, list[tuple[str, str | None]]] = {
        table: list(pairs) for table, pairs in drop_everywhere(w.source.video_id for w in renewed).items()
    }
    for outcome in (outcome for outcome in outcomes if outcome.todo.mode == "again"):
        for stage in ledger.stages_made(outcome):
            kind, _, subkey = stage.partition(":")
            drops[f"{kind}s"].append((outcome.listed["video_id"], subkey))
    return drops
