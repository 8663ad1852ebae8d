"""Every way a video can end is exactly one status, and every failure is one row of `errors`."""

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from pipeline.archive.listing import SCHEMA as LISTING_SCHEMA
from pipeline.config import Recipe
from pipeline.items.item import Failure, Item, Probed, Receipt
from pipeline.ledger.ledger import (
    Outcome,
    changed_status,
    error_records,
    errors_table,
    kept_receipts,
    left_record,
    targets_made,
    untouched_record,
    video_record,
    videos_table,
)
from pipeline.ledger.plan import Todo, known_videos, plan_run
from pipeline.types import EMBED, SAMPLE, ClipPlan, Probe, Source, Target

FINGERPRINTS = {SAMPLE: "s", EMBED: "e", Target("caption:p"): "c", Target("answer:q:video"): "a"}
SOURCE = Source("v", "file:///v.mp4", b"/v.mp4", "1-1")
LISTED = dict(video_id="v", uri="file:///v.mp4", name="v.mp4", root="file:///", version="1-1", size_bytes=1)
PROBE = Probe("mov", "h264", 64, 48, 0, 25.0, False, 16.0, 0, ())
CLIPS = tuple(ClipPlan(k, 4.0 * k, 4.0 * k + 4, (4.0 * k,)) for k in range(4))
ITEMS = tuple(
    Item(SOURCE, "index", i, 2, CLIPS[2 * i : 2 * i + 2], tuple(FINGERPRINTS), FINGERPRINTS) for i in range(2)
)
MADE = {"stage": "sample", "fingerprint": "s"}
TRANSIENT, PERMANENT = Failure("describe", "OutOfMemory", "m"), Failure("decode", "NoFrames", "m")


def outcome(
    *receipts: Receipt, attempts: int = 0, probe_failure: Failure | None = None, answers: tuple[Receipt, ...] = ()
) -> Outcome:
    todo = Todo(0, "index", "new", tuple(FINGERPRINTS), attempts)
    probed = Probed(SOURCE, None if probe_failure else PROBE, CLIPS, probe_failure, 0.1)
    return Outcome(LISTED, todo, probed, () if probe_failure else ITEMS, receipts, answers, None, FINGERPRINTS)


def receipt(item: int, n_clips: int = 2, coverage: float | None = 1.0, failure: Failure | None = None) -> Receipt:
    return Receipt(ITEMS[item].key, "v", "index", 2 * item, n_clips, "pyav", coverage, failure)


@pytest.mark.parametrize(
    ("ended", "status", "error_class", "n_clips", "coverage"),
    [
        (outcome(receipt(0), receipt(1)), "indexed", None, 4, 1.0),
        (outcome(receipt(0), receipt(1, n_clips=1)), "indexed", None, 3, 1.0),  # a window without a new frame
        (outcome(receipt(0), receipt(1, coverage=0.5)), "partial", None, 4, 0.75),
        (outcome(receipt(0), receipt(1, 0, None, PERMANENT)), "partial", "NoFrames", 4, 0.5),
        (outcome(receipt(0), receipt(1, 1, 1.0, TRANSIENT)), "partial", "OutOfMemory", 4, 1.0),
        (outcome(receipt(0, 0, None, PERMANENT), receipt(1, 0, None, PERMANENT)), "failed", "NoFrames", 4, 0.0),
        (outcome(receipt(0, 0, None, TRANSIENT), receipt(1, 0, None, TRANSIENT)), "failed", "OutOfMemory", 4, 0.0),
        (outcome(probe_failure=PERMANENT), "failed", "NoFrames", 0, None),
        (outcome(receipt(0, 0), receipt(1, 0)), "failed", "NoFrames", 0, 1.0),
    ],
)
def test_status(ended: Outcome, status: str, error_class: str | None, n_clips: int, coverage: float | None) -> None:
    row = video_record(ended, "run")
    assert (row["status"], row["error_class"], row["n_clips"], row["decode_coverage"]) == (
        status,
        error_class,
        n_clips,
        coverage,
    )
    errors = error_records(ended, "run")
    assert bool(errors) == (error_class is not None)
    assert not errors or errors[0]["error_class"] == error_class
    videos_table([row])
    errors_table(errors)


def test_three_transient_failures_are_quarantine() -> None:
    ended = outcome(probe_failure=Failure("probe", "ReadFailed", "m"), attempts=2)
    row = video_record(ended, "run")
    assert (row["status"], row["attempts"]) == ("quarantined", 3)
    assert error_records(ended, "run")[0]["attempt"] == 3
    permanent = outcome(probe_failure=PERMANENT, attempts=2)
    assert video_record(permanent, "run")["status"] == "failed"


def test_what_failed_knows_what_it_was_asked() -> None:
    """Also a video that changed and then failed: it gets its prompts back when it changes again."""
    lost = Receipt("k", "v", "answer", 0, 0, None, None, TRANSIENT)
    for ended, status in (
        (outcome(receipt(0), receipt(1), answers=(lost,)), "partial"),
        (outcome(probe_failure=PERMANENT), "failed"),
    ):
        row = video_record(ended, "r")
        assert row["status"] == status
        assert {pair["stage"]: pair["fingerprint"] for pair in row["fingerprints"]} == FINGERPRINTS


def test_work_on_stored_clips_moves_only_fingerprints() -> None:
    before = video_record(outcome(receipt(0), receipt(1)), "first")
    before["fingerprints"] = [{"stage": "sample", "fingerprint": "s"}, {"stage": "caption:old", "fingerprint": "o"}]
    again = replace(
        outcome(receipt(0)), todo=Todo(0, "again", "answer", (Target("answer:q:video"),), 0), probed=None, before=before
    )
    row = video_record(again, "second")
    changed = {name for name in row if row[name] != before[name]}
    assert changed == {"fingerprints", "run_id", "indexed_at"}
    assert {p["stage"] for p in row["fingerprints"]} == {"sample", Target("caption:old"), Target("answer:q:video")}


def test_rows_of_what_was_never_opened() -> None:
    refused = untouched_record(LISTED, "failed", "run", Failure("list", "SpecialFile", "a FIFO"), attempts=1)
    assert (refused["status"], refused["error_class"], refused["fingerprints"]) == ("failed", "SpecialFile", [])
    (deleted,) = changed_status(videos_table([refused]), "deleted", "later").to_pylist()
    assert (deleted["status"], deleted["run_id"], deleted["error_class"]) == ("deleted", "later", "SpecialFile")
    videos_table([refused, deleted, untouched_record(LISTED, "pending", "run", None)])
    had = video_record(outcome(receipt(0), receipt(1)), "first")
    refused = untouched_record(LISTED, "failed", "run", Failure("list", "SpecialFile", "a FIFO"), 1, had)
    assert refused["fingerprints"] == had["fingerprints"], "what it was asked, should it become a video again"
    assert refused["n_clips"] is None


@pytest.mark.parametrize(
    ("before", "reason", "expected"),
    [
        (None, "new", ("pending", "1-1", 0)),
        (dict(status="pending", version="0-0", fingerprints=[]), "changed", ("pending", "1-1", 0)),
        (dict(status="deleted", version="0-0", fingerprints=[MADE]), "returned", ("pending", "0-0", 1)),
        (dict(status="pending", version="0-0", fingerprints=[MADE]), "pending", None),
        (dict(status="indexed", version="0-0", fingerprints=[MADE]), "changed", None),
        (dict(status="failed", version="0-0", fingerprints=[MADE]), "retry", None),
    ],
)
def test_what_a_limit_leaves_is_listed_and_keeps_what_it_has(
    before: dict[str, object] | None, reason: str, expected: tuple[str, str, int] | None
) -> None:
    """A pending video that changes takes its new version; a deleted one that is back counts as listed again."""
    row = left_record(LISTED, before, Todo(0, "index", reason, (), 0), "run")
    assert (row and (row["status"], row["version"], len(row["fingerprints"]))) == expected


def test_work_on_stored_clips_that_fails_in_part_adds_nothing_and_moves_nothing() -> None:
    """Else a redone caption would stand beside the old one. Questions on the whole video are judged by themselves."""
    stages = (Target("caption:p"), Target("answer:q:clip"), Target("answer:q:video"))
    again = replace(
        outcome(receipt(0), receipt(1, 0, None, TRANSIENT), answers=(receipt(0),)),
        todo=Todo(0, "again", "redo", stages, 0),
        probed=None,
        before=video_record(outcome(receipt(0), receipt(1)), "first"),
    )
    assert targets_made(again) == [Target("answer:q:video")]
    assert kept_receipts(again) == list(again.answers)
    whole = replace(again, receipts=(receipt(0), receipt(1)))
    assert targets_made(whole) == list(stages)
    assert len(kept_receipts(whole)) == 3


@pytest.mark.parametrize(("failure", "tried"), [(TRANSIENT, 3), (PERMANENT, 1)])
def test_a_failure_on_stored_clips_is_tried_again_only_so_often(failure: Failure, tried: int) -> None:
    """The video is partial, as one that lacks wanted rows; a later prompt is still asked of it."""
    row, runs = video_record(outcome(receipt(0), receipt(1)), "first"), 0
    recipe = Recipe(
        (*FINGERPRINTS, Target("caption:new")),
        FINGERPRINTS | {Target("caption:new"): "n"},
        {Target("caption:new"): "New?"},
    )
    while runs < 9 and (todo := owed(row, recipe)) is not None:
        runs += 1
        ended = replace(
            outcome(receipt(0), receipt(1, 0 if todo.mode == "again" else 2, 1.0, failure), attempts=todo.attempts),
            todo=todo,
            before=row,
            fingerprints=recipe.fingerprints,
        )
        assert error_records(ended, "r")[0]["attempt"] == runs
        row = video_record(ended, "r")
        assert (row["status"], row["error_class"], row["attempts"]) == ("partial", failure.error_class, runs)
    assert runs == tried
    later = replace(
        recipe,
        wanted=(*recipe.wanted, Target("caption:later")),
        fingerprints=recipe.fingerprints | {Target("caption:later"): "l"},
    )
    todo = owed(row, later)
    assert todo is not None
    assert (todo.mode, todo.targets) == ("again", (Target("caption:later"),))


def owed(row: dict[str, Any], recipe: Recipe) -> Todo | None:
    listed = pa.Table.from_pylist([LISTED | {"path": b"", "modified_us": 0}], schema=LISTING_SCHEMA)
    known = known_videos(videos_table([row]).to_batches())
    plan = plan_run(listed, known, recipe, None, lambda root, uri: False)
    return plan.todo[0] if plan.todo else None
