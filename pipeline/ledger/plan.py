"""What a run will do, decided from the listing and the ledger alone, before Ray starts and before a model loads.

Pure functions over Arrow tables; nothing here reads storage.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Recipe
from pipeline.errors import VIDEO_ERRORS
from pipeline.types import EMBED, KINDS, SAMPLE, Kind, Mode, Target

MAX_ATTEMPTS = 3
"""Runs that may fail on a version of a video with a transient error before it is quarantined."""

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

_ROWS_AT_ONCE = 4096
"""Of the listing: only so many become Python objects together."""


@dataclass(frozen=True, slots=True)
class Todo:
    """One video to work on. `targets` are what its rows will be made for.

    mode "index": from decoding up, replacing whatever the video had. "again": its clips stay as they are; only
    captions or answers are added or replaced.
    """

    row: int  # of the listing
    mode: Mode
    reason: str  # new, changed, retry, redo, caption, answer, pending or returned
    targets: tuple[Target, ...]
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
    conflicts: Mapping[Kind, int] = field(default_factory=dict)  # earliest kind -> clips of another recipe

    @property
    def is_empty(self) -> bool:
        return not (self.todo or self.refused or self.quarantine or self.deleted)


@dataclass(frozen=True, slots=True)
class _Known:
    """One video of the ledger."""

    version: str
    status: str
    error_class: str | None
    attempts: int
    n_clips: int | None
    had: Mapping[Target, str]  # fingerprints; one mapping for all videos of one recipe


def known_videos(batches: Iterable[pa.RecordBatch]) -> pa.Table:
    """The ledger as `plan_run` takes it: PLAN_COLUMNS of `videos`, each distinct set of fingerprints kept once.

    Its column `fingerprints` is a dictionary of "stage=fingerprint;..." texts: 100,000 videos share a handful.
    """
    places = pa.dictionary(pa.int32(), pa.string())
    tables = []
    for batch in batches:
        table = pa.table({name: batch.column(name) for name in PLAN_COLUMNS if name != "fingerprints"})
        lists = batch.column("fingerprints")
        pairs = lists.flatten()
        texts = pc.binary_join_element_wise(pairs.field("stage"), pairs.field("fingerprint"), "=")
        offsets = pc.subtract(lists.offsets, lists.offsets[0])
        joined = pc.binary_join(pa.ListArray.from_arrays(offsets, texts), ";").dictionary_encode()
        table = table.append_column("fingerprints", joined)
        tables.append(table.set_column(table.schema.get_field_index("root"), "root", table["root"].dictionary_encode()))
    if tables:
        return pa.concat_tables(tables).unify_dictionaries()
    types = {"attempts": pa.int32(), "n_clips": pa.int32(), "root": places, "fingerprints": places}
    return pa.table({name: pa.array([], types.get(name, pa.string())) for name in PLAN_COLUMNS})


def plan_run(
    listing: pa.Table,
    ledger: pa.Table,
    recipe: Recipe,
    redo: Kind | None,
    is_covered: Callable[[str, str], bool],
    retry: Collection[str] = (),
) -> Plan:
    """Decide for each row of `listing` (video_id, version, refusal, ...) against `ledger` (from `known_videos`).

    `is_covered(root, uri)` says whether a video of the ledger would be listed now if it were still there: only then
    its absence means that the file is gone. Videos of `retry` are tried again as if for the first time.
    """
    deleted = _absent(listing, ledger, is_covered)
    ledger = ledger.drop_columns(["uri", "root"])  # most of its bytes, which nothing below asks for
    todo, refused, quarantine = list[Todo](), list[int](), list[int]()
    same: dict[tuple[Target, ...], tuple[Target, ...]] = {}  # one object for the targets of many videos
    standing = 0
    conflicts: Counter[Kind] = Counter()
    place = pc.index_in(listing["video_id"].combine_chunks(), ledger["video_id"].combine_chunks())
    open_rows = _unsettled(listing, ledger, place, recipe)  # on most nights few: only they become Python objects
    unchanged = listing.num_rows - len(open_rows)
    for row, video_id, version, refusal, known in _open(listing, ledger, place, open_rows):
        is_other = known is not None and (known.version != version or known.status == "deleted")
        decision: Todo | str
        if refusal is not None:
            decision = "standing" if known is not None and known.status == "failed" and not is_other else "refused"
        elif known is None:
            decision = Todo(row, "index", "new", recipe.wanted, 0)
        elif is_other or known.status == "pending":
            reason = "returned" if known.status == "deleted" else "changed" if is_other else "pending"
            attempts = known.attempts if reason == "pending" else 0
            decision = Todo(row, "index", reason, _all_targets(recipe, known.had), attempts)
        elif video_id in retry:
            decision = Todo(row, "index", "retry", _all_targets(recipe, known.had), 0)
        else:
            decision = _decide_known(row, known, recipe, redo, conflicts)
        if isinstance(decision, Todo):
            todo.append(replace(decision, targets=same.setdefault(decision.targets, decision.targets)))
        elif decision == "refused":
            refused.append(row)
        elif decision == "quarantine":
            quarantine.append(row)
        elif decision == "standing":
            standing += 1
        else:
            unchanged += 1
    return Plan(tuple(todo), tuple(refused), tuple(quarantine), unchanged, standing, tuple(deleted), dict(conflicts))


def _decide_known(row: int, known: _Known, recipe: Recipe, redo: Kind | None, conflicts: Counter[Kind]) -> Todo | str:
    """A video whose version is in the ledger: what is still owed to it."""
    had = known.had
    if known.status == "quarantined":
        return "standing"
    if known.error_class is not None and VIDEO_ERRORS[known.error_class].transient:
        if known.attempts < MAX_ATTEMPTS:
            return Todo(row, "index", "retry", _all_targets(recipe, had), known.attempts)
        if known.status == "failed":
            return "quarantine"
    if known.status == "failed":
        if had.get(SAMPLE) == recipe.fingerprints[SAMPLE]:
            return "standing"
        return Todo(row, "index", "retry", _all_targets(recipe, had), 0)
    differing = [s for s in recipe.wanted if s in had and had[s] != recipe.fingerprints[s]]
    allowed = redo is not None and all(_rank(t.kind) >= _rank(redo) for t in differing)
    if differing and not allowed:
        conflicts[min((t.kind for t in differing), key=_rank)] += known.n_clips or 0
        return "unchanged"
    if any(t in (SAMPLE, EMBED) for t in differing):
        return Todo(row, "index", "redo", _all_targets(recipe, had), 0)
    owed = tuple(s for s in recipe.wanted if s not in had or s in differing)
    if not owed:
        return "unchanged"
    return Todo(row, "again", "redo" if differing else owed[0].kind, owed, known.attempts)


def _all_targets(recipe: Recipe, had: Collection[Target]) -> tuple[Target, ...]:
    """What the command wants, and what the video's rows had before: leaving something out deletes nothing."""
    more = {s for s in had if s in recipe.texts}.difference(recipe.wanted)
    return (*recipe.wanted, *sorted(more)) if more else recipe.wanted


def _rank(kind: Kind) -> int:
    return KINDS.index(kind)


def _unsettled(listing: pa.Table, ledger: pa.Table, place: pa.Array, recipe: Recipe) -> pa.Array:
    """Rows of the listing that need a decision: all but those indexed in this version with all that is wanted."""
    if ledger.num_rows == 0:
        return pa.array(np.arange(listing.num_rows))
    ids, distinct = _fingerprint_ids(ledger)
    has_all = [i for i, had in enumerate(distinct) if all(had.get(s) == recipe.fingerprints[s] for s in recipe.wanted)]
    settled = pc.equal(ledger["version"].combine_chunks().take(place), listing["version"].combine_chunks())
    settled = pc.and_(settled, pc.equal(ledger["status"].combine_chunks().take(place), "indexed"))
    settled = pc.and_(settled, pc.is_in(ids.take(place), pa.array(has_all, ids.type)))
    settled = pc.and_(pc.fill_null(settled, False), pc.is_null(listing["refusal"].combine_chunks()))
    return pc.indices_nonzero(pc.invert(settled)).cast(pa.int64())


def _open(
    listing: pa.Table, ledger: pa.Table, place: pa.Array, open_rows: pa.Array
) -> Iterator[tuple[int, str, str, str | None, _Known | None]]:
    """(row, video_id, version, refusal, what the ledger knows) of each open row of the listing."""
    ids, distinct = _fingerprint_ids(ledger)
    for first in range(0, len(open_rows), _ROWS_AT_ONCE):
        rows = open_rows[first : first + _ROWS_AT_ONCE]
        listed = [listing[name].take(rows).to_pylist() for name in ("video_id", "version", "refusal")]
        at = place.take(rows)
        names = ("version", "status", "error_class", "attempts", "n_clips")
        columns = [*(ledger[name].take(at).to_pylist() for name in names), ids.take(at).to_pylist()]
        found = (
            None if version is None else _Known(version, status, error_class, attempts, n_clips, distinct[had])
            for version, status, error_class, attempts, n_clips, had in zip(*columns, strict=True)
        )
        yield from zip(rows.to_pylist(), *listed, found, strict=True)


def _absent(listing: pa.Table, ledger: pa.Table, is_covered: Callable[[str, str], bool]) -> list[str]:
    listed = pc.is_in(ledger["video_id"], listing["video_id"].combine_chunks())
    gone = ledger.filter(pc.and_(pc.invert(listed), pc.not_equal(ledger["status"], "deleted")))
    return [
        place["video_id"]
        for batch in gone.select(["video_id", "root", "uri"]).to_batches(max_chunksize=_ROWS_AT_ONCE)
        for place in batch.to_pylist()
        if is_covered(place["root"], place["uri"])
    ]


def _fingerprint_ids(ledger: pa.Table) -> tuple[pa.Array, list[dict[Target, str]]]:
    """A number for each video, and the fingerprints it stands for."""
    column = ledger["fingerprints"].combine_chunks()
    return column.indices, [_pairs(text) for text in column.dictionary.to_pylist()]


def _pairs(text: str) -> dict[Target, str]:
    """The fingerprints that "target=fingerprint;..." spells."""
    return {Target(target): found for target, _, found in (pair.partition("=") for pair in text.split(";") if pair)}
