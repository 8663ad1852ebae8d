"""The `videos` row of each listed video: what became of it, decided in one place. Pure functions.

every planned clip has its rows, all of it decoded   -> indexed
some rows, or only part of it decodes                -> partial
no rows                                              -> failed; quarantined after three runs if transient
left by --limit or --budget                          -> pending
gone from a root that was listed whole               -> deleted

`fingerprints` name what was asked of the video and by which recipe. Of an `indexed` video every row of it is there; of
another one rows may be missing, and what it was asked is still known when it changes or is tried again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from pipeline.archive.labels import path_in_root
from pipeline.errors import NoFrames
from pipeline.index.tables import ERRORS, VIDEOS
from pipeline.items.item import Failure, Item, Probed, Receipt
from pipeline.ledger.plan import MAX_ATTEMPTS, Todo
from pipeline.types import Probe, Status, Target

Record = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """All that is known of one video when its wave commits. `items` and `receipts` are those of its index items."""

    listed: Record  # row of the listing
    todo: Todo
    probed: Probed | None
    items: Sequence[Item] = ()
    receipts: Sequence[Receipt] = ()
    answers: Sequence[Receipt] = ()  # of its answer items
    before: Record | None = None  # row of the ledger, for work on stored clips
    fingerprints: Mapping[Target, str] = field(default_factory=dict)

    @property
    def failures(self) -> list[tuple[Failure, int | None]]:
        """What went wrong, each with the first clip it concerns (None: the whole video)."""
        if self.probed is not None and self.probed.failure is not None:
            return [(self.probed.failure, None)]
        found = [(r.failure, r.first_clip) for r in (*self.receipts, *self.answers) if r.failure is not None]
        if not found and self.n_clips == 0 and self.todo.mode == "index":
            return [(Failure("decode", NoFrames.__name__, "no frame decodes in any of its windows"), None)]
        return [*found]

    @property
    def n_clips(self) -> int:
        """Clips that have rows now."""
        return sum(receipt.n_clips for receipt in self.receipts)


def video_record(outcome: Outcome, run_id: str) -> Record:
    """The row of one video after this run."""
    if outcome.todo.mode == "again":
        return _record_again(outcome, run_id)
    probe = outcome.probed.probe if outcome.probed is not None else None
    failures, n_rows = [failure for failure, _ in outcome.failures], outcome.n_clips
    coverage = _coverage(outcome)
    status: Status = "indexed"
    if n_rows == 0:
        status = "failed"
    elif failures or (coverage is not None and coverage < 1):
        status = "partial"
    attempts = outcome.todo.attempts + 1 if failures else 0
    if status == "failed" and failures[0].transient and attempts >= MAX_ATTEMPTS:
        status = "quarantined"
    return _record(
        outcome.listed,
        run_id,
        status=status,
        probe=probe,
        decoder=next((r.decoder for r in outcome.receipts if r.decoder is not None), None),
        coverage=coverage,
        bytes_read=_bytes_read(outcome),
        n_clips=_planned_clips(outcome),
        error_class=failures[0].error_class if failures else None,
        attempts=attempts,
        fingerprints={target: outcome.fingerprints[target] for target in outcome.todo.targets},
    ) | {"reason": outcome.todo.reason, "content_run_id": run_id}


def untouched_record(
    listed: Record,
    status: Status,
    run_id: str,
    failure: Failure | None,
    attempts: int = 0,
    before: Record | None = None,
) -> Record:
    """A video of which nothing was opened: refused by the listing, or left for a later run."""
    error_class = None if failure is None else failure.error_class
    row = _record(listed, run_id, status=status, error_class=error_class, attempts=attempts, fingerprints={})
    return row if before is None else row | {"fingerprints": before["fingerprints"]}


def left_record(listed: Record, before: Record | None, todo: Todo, run_id: str) -> Record | None:
    """A video left for a later run: `pending`, or None where the row it has stays as it is."""
    if before is None or (before["status"] == "pending" and not before["fingerprints"]):
        return untouched_record(listed, "pending", run_id, None, todo.attempts)
    if before["status"] == "deleted":  # it is back: listed again, with what it had until its turn comes
        return before | _stamp("pending", run_id)
    return None


def targets_made(outcome: Outcome) -> list[Target]:
    """Of work on stored clips: the targets whose every item has its rows. Others keep the rows they had."""
    by_items, by_answers = not any(_failed(outcome.receipts)), not any(_failed(outcome.answers))
    return [t for t in outcome.todo.targets if (by_answers if t.asks_video else by_items)]


def kept_receipts(outcome: Outcome) -> list[Receipt]:
    """Receipts whose rows are committed: all, but of work on stored clips only those of targets that were made."""
    if outcome.todo.mode == "index":
        return [*outcome.receipts, *outcome.answers]
    parts = (outcome.receipts, outcome.answers)
    return [receipt for part in parts if not any(_failed(part)) for receipt in part]


def changed_status(before: pa.Table, status: Status, run_id: str) -> pa.Table:
    """The ledger's rows with another status, and nothing else changed."""
    for name, value in _stamp(status, run_id).items():
        place = before.schema.get_field_index(name)
        kind = before.schema.field(place)
        before = before.set_column(place, kind, pa.repeat(pa.scalar(value, kind.type), len(before)))
    return before


def error_records(outcome: Outcome, run_id: str) -> list[Record]:
    """One row of `errors` for each failure of a video."""
    attempt = outcome.todo.attempts + 1
    return [error_record(outcome.listed, failure, place, attempt, run_id) for failure, place in outcome.failures]


def error_record(listed: Record, failure: Failure, clip_index: int | None, attempt: int, run_id: str) -> Record:
    return {
        "video_id": listed["video_id"],
        "uri": listed["uri"],
        "version": listed["version"],
        "clip_index": clip_index,
        "stage": failure.stage,
        "error_class": failure.error_class,
        "message": failure.message,
        "transient": failure.transient,
        "attempt": attempt,
        "run_id": run_id,
        "at": datetime.now(UTC),
    }


def videos_table(records: Sequence[Record]) -> pa.Table:
    return pa.Table.from_pylist(list(records), schema=VIDEOS.schema())


def errors_table(records: Sequence[Record]) -> pa.Table:
    return pa.Table.from_pylist(list(records), schema=ERRORS.schema())


def _record_again(outcome: Outcome, run_id: str) -> Record:
    """Stored clips were described again: fingerprints move, and a video that lacks what was asked is `partial`."""
    if outcome.before is None:
        raise ValueError(f"{outcome.listed['uri']}: work on stored clips needs the ledger's row")
    stored = {Target(pair["stage"]): pair["fingerprint"] for pair in outcome.before["fingerprints"]}
    asked = {target: outcome.fingerprints[target] for target in outcome.todo.targets}
    row = outcome.before | {"fingerprints": _fingerprint_list(stored | asked)}
    status = outcome.before["status"]
    if outcome.failures:
        status = "partial"
        row |= {"error_class": outcome.failures[0][0].error_class, "attempts": outcome.todo.attempts + 1}
    return row | _stamp(status, run_id)


def _stamp(status: Status, run_id: str) -> Record:
    return {"status": status, "run_id": run_id, "indexed_at": datetime.now(UTC)}


def _failed(receipts: Sequence[Receipt]) -> list[bool]:
    return [receipt.failure is not None for receipt in receipts]


def _planned_clips(outcome: Outcome) -> int:
    """Clips the video should have: what was decoded, and what was planned where decoding failed."""
    planned = {item.key: len(item.clips) - item.has_context for item in outcome.items}
    return sum(r.n_clips if r.failure is None else planned[r.item_key] for r in outcome.receipts)


def _bytes_read(outcome: Outcome) -> int | None:
    """What probe and items fetched from remote storage, items that an earlier run staged included."""
    parts = [outcome.probed.bytes_read if outcome.probed is not None else None]
    parts += [receipt.bytes_read for receipt in (*outcome.receipts, *outcome.answers)]
    found = [part for part in parts if part is not None]
    return sum(found) if found else None


def _coverage(outcome: Outcome) -> float | None:
    """Mean over the items of decoded span over demuxed span, weighted by their length; a failed item covers nothing."""
    spans = {item.key: item.clips[-1].end_s - item.clips[int(item.has_context)].start_s for item in outcome.items}
    total = sum(spans.values())
    if not outcome.receipts or total <= 0:
        return None
    covered = sum(spans[r.item_key] * (r.coverage or 0.0) for r in outcome.receipts)
    return min(1.0, covered / total)


def _record(
    listed: Record,
    run_id: str,
    *,
    status: Status,
    attempts: int,
    fingerprints: Mapping[Target, str],
    probe: Probe | None = None,
    decoder: str | None = None,
    coverage: float | None = None,
    bytes_read: int | None = None,
    n_clips: int | None = None,
    error_class: str | None = None,
) -> Record:
    return {
        **{name: listed[name] for name in ("video_id", "uri", "name", "root", "version", "size_bytes")},
        "path": path_in_root(listed["uri"], listed["root"]),
        **({} if probe is None else _probe_columns(probe)),
        "decoder": decoder,
        "decode_coverage": coverage,
        "bytes_read": bytes_read,
        "n_clips": n_clips,
        "status": status,
        "error_class": error_class,
        "attempts": attempts,
        "fingerprints": _fingerprint_list(fingerprints),
        "run_id": run_id,
        "indexed_at": datetime.now(UTC),
    }


def _probe_columns(probe: Probe) -> Record:
    recorded = None if probe.recorded_at_us is None else datetime.fromtimestamp(probe.recorded_at_us / 1e6, UTC)
    names = ("container", "codec", "width", "height", "rotation", "fps", "is_vfr", "duration_s")
    return {name: getattr(probe, name) for name in names} | {"recorded_at": recorded}


def _fingerprint_list(fingerprints: Mapping[Target, str]) -> list[dict[str, str]]:
    """A target -> fingerprint mapping as the `fingerprints` column of `videos` stores it."""
    return [{"stage": target, "fingerprint": fingerprints[target]} for target in sorted(fingerprints)]
