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
) -> Plan:
    """Decide for each row of `listing` (video_id, version, refusal, ...) against `ledger` (the `videos` table).

    `is_covered(root, uri)` says whether a video of the ledger would be listed now if it were still there: only then
    its absence means that the file is gone.
    """
    known = _known(ledger)
    todo, refused, quarantine = [], [], []
    unchanged = standing = 0
    conflicts: Counter[str] = Counter()
    columns = (listing["video_id"].to_pylist(), listing["version"].to_pylist(), listing["refusal"].to_pylist())
    for row, (video_id, version, refusal) in enumerate(zip(*columns, strict=True)):
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
        decision = _decide_known(row, at, known, recipe, redo, conflicts)
        if isinstance(decision, Todo):
            todo.append(decision)
        elif decision == "quarantine":
            quarantine.append(row)
        elif decision == "standing":
            standing += 1
        else:
            unchanged += 1
    deleted = _absent(ledger, known, set(columns[0]), is_covered)
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


def _absent(
    ledger: pa.Table, known: _Known, listed: Collection[str], is_covered: Callable[[str, str], bool]
) -> list[str]:
    gone = [at for video_id, at in known.rows.items() if video_id not in listed and known.statuses[at] != "deleted"]
    places = ledger.select(["video_id", "root", "uri"]).take(pa.array(gone, pa.int64())).to_pylist()
    return [place["video_id"] for place in places if is_covered(place["root"], place["uri"])]


def _known(ledger: pa.Table) -> _Known:
    return _Known(
        rows={video_id: at for at, video_id in enumerate(ledger["video_id"].to_pylist())},
        versions=ledger["version"].to_pylist(),
        statuses=ledger["status"].to_pylist(),
        error_classes=ledger["error_class"].to_pylist(),
        attempts=ledger["attempts"].to_pylist(),
        n_clips=ledger["n_clips"].to_pylist(),
        fingerprints=_shared_fingerprints(ledger["fingerprints"].combine_chunks()),
    )


def _shared_fingerprints(column: pa.Array) -> list[dict[str, str]]:
    """One dict for each distinct list: 100,000 videos of one recipe share a handful, not 400,000 strings."""
    if len(column) == 0:
        return []
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    pairs = column.flatten()
    text = pc.binary_join_element_wise(pairs.field("stage"), pairs.field("fingerprint"), "=")
    offsets = column.offsets
    if len(offsets) and offsets[0].as_py():
        offsets = pc.subtract(offsets, offsets[0])
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, text), ";").dictionary_encode()
    shared = [dict(p.split("=") for p in entry.split(";") if p) for entry in joined.dictionary.to_pylist()]
    return [shared[i] for i in joined.indices.to_pylist()]
