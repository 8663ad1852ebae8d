"""What a run will do, decided from the listing and the ledger alone, before Ray starts and before a model loads.

Pure functions over Arrow tables; nothing here reads storage.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Recipe
from pipeline.errors import VIDEO_ERRORS

MAX_ATTEMPTS = 3
"""Runs that may fail on a version of a video with a transient error before it is quarantined."""

REDO_ORDER = ("sample", "embed", "caption", "answer")

PLAN_COLUMNS = (
    "video_id",
    "uri",
    "root",
    "version",
    "status",
    "error_class",
    "attempts",
    "n_clips",
    "fingerprints",
)
"""What of the `videos` table a plan is made from."""


@dataclass(frozen=True)
class Todo:
    """One video to work on. `stages` are the stage names its rows will be made for.

    mode "index": from decoding up, replacing whatever the video had. "again": its clips stay as they are; only
    captions or answers are added or replaced.
    """

    row: int  # of the listing
    mode: str
    reason: str  # new, changed, retry, redo, caption, answer, pending or returned
    stages: tuple[str, ...]
    attempts: int  # failed runs on this version so far


@dataclass(frozen=True)
class Plan:
    """Every listed video is in exactly one of `todo`, `refused`, `unchanged`, `quarantine`, `standing`."""

    todo: tuple[Todo, ...] = ()
    refused: tuple[int, ...] = ()  # listing rows newly refused before being opened
    quarantine: tuple[int, ...] = ()  # listing rows whose attempts are used up now
    unchanged: int = 0
    standing: int = 0  # failed or quarantined earlier, and nothing changed since
    deleted: tuple[str, ...] = ()  # video_ids whose file is gone from a root that was listed whole
    conflicts: Mapping[str, int] = field(default_factory=dict)  # stage -> clips whose recipe differs from the index's

    @property
    def is_empty(self) -> bool:
        return not (self.todo or self.refused or self.quarantine or self.deleted)


@dataclass(frozen=True)
class _Known:
    """The ledger as plain lists, one entry a video; fingerprints are shared between videos of one recipe."""

    rows: dict[str, int]
    versions: list[str]
    statuses: list[str]
    error_classes: list[str | None]
    attempts: list[int]
    n_clips: list[int | None]
    fingerprints: list[dict[str, str]]


def plan_run(
    listing: pa.Table,
    ledger: pa.Table,
    recipe: Recipe,
    redo: str | None,
    is_covered: Callable[[str, str], bool],
    retry: Collection[str] = (),
) -> Plan:
    """Decide for each row of `listing` (video_id, version, refusal, ...) against `ledger` (the `videos` table).

    `is_covered(root, uri)` says whether a video of the ledger would be listed now if it were still there: only then
    its absence means that the file is gone. Videos of `retry` are tried again as if for the first time.
    """
    open_rows = _unsettled(listing, ledger, recipe)  # on most nights few: only they become Python objects
    listed = listing.select(["video_id", "version", "refusal"]).take(open_rows)
    known = _known(ledger.filter(pc.is_in(ledger["video_id"], listed["video_id"].combine_chunks())))
    todo, refused, quarantine = [], [], []
    unchanged, standing = listing.num_rows - len(open_rows), 0
    conflicts: Counter[str] = Counter()
    columns = (listed["video_id"].to_pylist(), listed["version"].to_pylist(), listed["refusal"].to_pylist())
    for row, video_id, version, refusal in zip(open_rows.to_pylist(), *columns, strict=True):
        at = known.rows.get(video_id)
        if at is not None and (known.versions[at] != version or known.statuses[at] == "deleted"):
            reason = "returned" if known.statuses[at] == "deleted" else "changed"
        else:
            reason = "new" if at is None else known.statuses[at]
        if refusal is not None:
            if reason == "failed":
                standing += 1
            else:
                refused.append(row)
            continue
        if at is None or reason in ("changed", "returned", "pending"):
            had = () if at is None else known.fingerprints[at]
            attempts = known.attempts[at] if at is not None and reason == "pending" else 0
            todo.append(Todo(row, "index", reason, _all_stages(recipe, had), attempts))
            continue
        if video_id in retry:
            todo.append(Todo(row, "index", "retry", _all_stages(recipe, known.fingerprints[at]), 0))
            continue
        decision = _decide_known(row, at, known, recipe, redo, conflicts)
        if isinstance(decision, Todo):
            todo.append(decision)
        elif decision == "quarantine":
            quarantine.append(row)
        elif decision == "standing":
            standing += 1
        else:
            unchanged += 1
    deleted = _absent(listing, ledger, is_covered)
    return Plan(tuple(todo), tuple(refused), tuple(quarantine), unchanged, standing, tuple(deleted), dict(conflicts))


def _decide_known(
    row: int, at: int, known: _Known, recipe: Recipe, redo: str | None, conflicts: Counter[str]
) -> Todo | str:
    """A video whose version is in the ledger: what is still owed to it."""
    status, error_class, attempts = known.statuses[at], known.error_classes[at], known.attempts[at]
    had = known.fingerprints[at]
    if status == "quarantined":
        return "standing"
    failed_before = error_class is not None and status in ("failed", "partial")
    if failed_before and VIDEO_ERRORS[error_class].transient:  # type: ignore[index]  # not None: failed_before says so
        if attempts >= MAX_ATTEMPTS:
            return "quarantine" if status == "failed" else "unchanged"
        return Todo(row, "index", "retry", _all_stages(recipe, had), attempts)
    if status == "failed":
        if had.get("sample") == recipe.fingerprints["sample"]:
            return "standing"
        return Todo(row, "index", "retry", _all_stages(recipe, had), 0)
    differing = [s for s in recipe.wanted if s in had and had[s] != recipe.fingerprints[s]]
    allowed = redo is not None and all(_rank(s) >= REDO_ORDER.index(redo) for s in differing)
    if differing and not allowed:
        earliest = min(differing, key=_rank)
        conflicts[earliest.split(":")[0]] += known.n_clips[at] or 0
        return "unchanged"
    if any(s in ("sample", "embed") for s in differing):
        return Todo(row, "index", "redo", _all_stages(recipe, had), 0)
    owed = [s for s in recipe.wanted if s not in had or s in differing]
    if not owed:
        return "unchanged"
    return Todo(row, "again", "redo" if differing else owed[0].split(":")[0], tuple(owed), 0)


def _all_stages(recipe: Recipe, had: Collection[str]) -> tuple[str, ...]:
    """What the command wants, and what the video's rows had before: leaving something out deletes nothing."""
    return tuple(sorted({*recipe.wanted, *(s for s in had if s in recipe.texts)}))


def _rank(stage: str) -> int:
    return REDO_ORDER.index(stage.split(":")[0])


def _unsettled(listing: pa.Table, ledger: pa.Table, recipe: Recipe) -> pa.Array:
    """Rows of the listing that need a decision: all but those indexed in this version with all that is wanted."""
    if ledger.num_rows == 0:
        return pa.array(range(listing.num_rows), pa.int64())
    ids, distinct = _fingerprint_ids(ledger["fingerprints"])
    has_all = [i for i, had in enumerate(distinct) if all(had.get(s) == recipe.fingerprints[s] for s in recipe.wanted)]
    place = pc.index_in(listing["video_id"].combine_chunks(), ledger["video_id"].combine_chunks())
    settled = pc.and_(
        pc.equal(ledger["version"].combine_chunks().take(place), listing["version"].combine_chunks()),
        pc.and_(
            pc.equal(ledger["status"].combine_chunks().take(place), "indexed"),
            pc.is_in(ids.take(place), pa.array(has_all, ids.type)),
        ),
    )
    settled = pc.and_(pc.fill_null(settled, False), pc.is_null(listing["refusal"].combine_chunks()))
    return pc.indices_nonzero(pc.invert(settled)).cast(pa.int64())


def _absent(listing: pa.Table, ledger: pa.Table, is_covered: Callable[[str, str], bool]) -> list[str]:
    listed = pc.is_in(ledger["video_id"], listing["video_id"].combine_chunks())
    gone = ledger.filter(pc.and_(pc.invert(listed), pc.not_equal(ledger["status"], "deleted")))
    places = gone.select(["video_id", "root", "uri"]).to_pylist()
    return [place["video_id"] for place in places if is_covered(place["root"], place["uri"])]


def _known(ledger: pa.Table) -> _Known:
    ids, distinct = _fingerprint_ids(ledger["fingerprints"])
    return _Known(
        rows={video_id: at for at, video_id in enumerate(ledger["video_id"].to_pylist())},
        versions=ledger["version"].to_pylist(),
        statuses=ledger["status"].to_pylist(),
        error_classes=ledger["error_class"].to_pylist(),
        attempts=ledger["attempts"].to_pylist(),
        n_clips=ledger["n_clips"].to_pylist(),
        fingerprints=[distinct[i] for i in ids.to_pylist()],
    )


def _fingerprint_ids(column: pa.ChunkedArray) -> tuple[pa.Array, list[dict[str, str]]]:
    """A number for each row, and what it stands for: 100,000 videos of one recipe share a handful of mappings."""
    if len(column) == 0:
        return pa.array([], pa.int32()), []
    lists = pa.concat_arrays(column.chunks)
    pairs = lists.flatten()
    text = pc.binary_join_element_wise(pairs.field("stage"), pairs.field("fingerprint"), "=")
    offsets = pc.subtract(lists.offsets, lists.offsets[0])
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, text), ";").dictionary_encode()
    return joined.indices, [
        dict(p.split("=") for p in entry.split(";") if p) for entry in joined.dictionary.to_pylist()
    ]
