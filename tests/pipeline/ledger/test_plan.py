"""What is owed to each video, cell by cell: new, changed, failed, asked something new, asked with another recipe."""

from collections.abc import Sequence

import pyarrow as pa
import pytest

from pipeline.archive.listing import SCHEMA
from pipeline.config import Recipe
from pipeline.index.tables import VIDEOS
from pipeline.ledger.plan import Plan, known_videos, plan_run
from pipeline.types import EMBED, SAMPLE, Target

RECIPE = Recipe(
    wanted=(SAMPLE, EMBED, Target("caption:p"), Target("answer:q:video")),
    fingerprints={
        SAMPLE: "s",
        EMBED: "e",
        Target("caption:p"): "c",
        Target("answer:q:video"): "a",
        Target("caption:old"): "o",
    },
    texts={Target("caption:p"): "Describe.", Target("answer:q:video"): "Why?", Target("caption:old"): "Old?"},
)
ALL = dict(sample="s", embed="e", **{Target("caption:p"): "c", Target("answer:q:video"): "a"})


def listing(*rows: tuple[str, str] | tuple[str, str, str]) -> pa.Table:
    records = [
        {
            "video_id": row[0],
            "uri": f"file:///archive/{row[0]}",
            "path": b"",
            "name": row[0],
            "root": "file:///archive",
            "version": row[1],
            "size_bytes": 1,
            "modified_us": 0,
            "refusal": row[2] if len(row) == 3 else None,
            "refusal_message": None,
        }
        for row in rows
    ]
    return pa.Table.from_pylist(records, schema=SCHEMA)


def ledger(*rows: dict[str, object]) -> pa.Table:
    base = dict(
        uri="", name="", root="file:///archive", attempts=0, run_id="r", indexed_at=0, n_clips=3, error_class=None
    )
    records = []
    for row in rows:
        fingerprints = [{"stage": s, "fingerprint": f} for s, f in dict(row.pop("had", ALL)).items()]  # type: ignore[call-overload]  # rows are dicts of anything
        records.append({**base, "version": "1", "status": "indexed", "fingerprints": fingerprints, **row})
    return known_videos(pa.Table.from_pylist(records, schema=VIDEOS.schema()).to_batches())


def plan(listed: pa.Table, known: pa.Table, redo: str | None = None, recipe: Recipe = RECIPE) -> Plan:
    return plan_run(listed, known, recipe, redo, lambda root, uri: root == "file:///archive")


def only(p: Plan) -> tuple[str, str, Sequence[str]]:
    (todo,) = p.todo
    return todo.mode, todo.reason, todo.targets


def test_everything_is_new_on_an_empty_index() -> None:
    p = plan(listing(("a", "1"), ("b", "1")), ledger())
    assert [(t.row, t.mode, t.reason) for t in p.todo] == [(0, "index", "new"), (1, "index", "new")]
    assert set(p.todo[0].targets) == set(RECIPE.wanted)


def test_nothing_is_owed_to_what_is_indexed_by_the_same_recipe() -> None:
    p = plan(listing(("a", "1")), ledger(dict(video_id="a")))
    assert p.is_empty
    assert p.unchanged == 1


@pytest.mark.parametrize("status", ["indexed", "partial", "failed", "quarantined"])
def test_changed_content_is_indexed_again_with_all_it_had(status: str) -> None:
    had = {**ALL, Target("caption:old"): "o"}
    mode, reason, stages = only(plan(listing(("a", "2")), ledger(dict(video_id="a", status=status, had=had))))
    assert (mode, reason) == ("index", "changed")
    assert Target("caption:old") in stages, "leaving a prompt out of a command deletes nothing"


def test_a_new_question_touches_only_answers() -> None:
    had = {k: v for k, v in ALL.items() if not k.startswith("answer")}
    assert only(plan(listing(("a", "1")), ledger(dict(video_id="a", had=had)))) == (
        "again",
        "answer",
        (Target("answer:q:video"),),
    )


@pytest.mark.parametrize(
    ("stage", "redo", "accepted"),
    [
        ("sample", None, False),
        ("sample", "embed", False),
        ("sample", "sample", True),
        ("embed", "caption", False),
        ("embed", "embed", True),
        (Target("caption:p"), None, False),
        (Target("caption:p"), "answer", False),
        (Target("caption:p"), "caption", True),
        (Target("answer:q:video"), "answer", True),
    ],
)
def test_another_recipe_needs_permission(stage: str, redo: str | None, accepted: bool) -> None:
    p = plan(listing(("a", "1")), ledger(dict(video_id="a", had={**ALL, stage: "other"})), redo)
    if accepted:
        assert not p.conflicts
        assert only(p)[0] == ("index" if stage in ("sample", "embed") else "again")
    else:
        assert p.conflicts == {stage.split(":")[0]: 3}
        assert not p.todo


@pytest.mark.parametrize(
    ("status", "error_class", "attempts", "expected"),
    [
        ("failed", "NotAVideo", 1, "standing"),
        ("failed", "DecodeTimeout", 1, "retry"),
        ("failed", "DecodeTimeout", 3, "quarantine"),
        ("partial", "OutOfMemory", 2, "retry"),
        ("partial", "OutOfMemory", 3, "unchanged"),
        ("partial", None, 0, "unchanged"),
        ("quarantined", "DecodeTimeout", 3, "standing"),
        ("pending", None, 0, "pending"),
        ("deleted", None, 0, "returned"),
    ],
)
def test_what_failed_is_tried_again_only_where_that_may_help(
    status: str, error_class: str | None, attempts: int, expected: str
) -> None:
    known = ledger(dict(video_id="a", status=status, error_class=error_class, attempts=attempts))
    p = plan(listing(("a", "1")), known)
    got = p.todo[0].reason if p.todo else ("quarantine" if p.quarantine else "standing" if p.standing else "unchanged")
    assert got == expected


def test_a_permanent_failure_is_tried_again_by_another_recipe() -> None:
    known = ledger(dict(video_id="a", status="failed", error_class="TooLarge", attempts=1, had={"sample": "other"}))
    assert only(plan(listing(("a", "1")), known))[1] == "retry"


def test_refused_files_are_recorded_once() -> None:
    assert plan(listing(("a", "1", "SpecialFile")), ledger()).refused == (0,)
    p = plan(listing(("a", "1", "SpecialFile")), ledger(dict(video_id="a", status="failed", error_class="SpecialFile")))
    assert p.is_empty
    assert p.standing == 1


def test_absence_counts_only_where_it_would_be_seen() -> None:
    known = ledger(dict(video_id="a"), dict(video_id="b", root="file:///other"), dict(video_id="c", status="deleted"))
    assert plan(listing(("z", "1")), known).deleted == ("a",)
