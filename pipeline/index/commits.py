"""Commits: the only way the tables of an index change. Publish, replace, compact and purge are all commits.

A commit goes through five steps, and a crash between any two of them is finished by `roll_forward`:

    1. _state/commits/<n>-<token>.parquet   rows the driver adds by itself (videos, errors)
    2. _state/commits/<n>.json              the plan, created exclusively: from here on the commit is open
    3. <table>/c<n>-g<group>.parquet        new files, a pure function of plan, staged items and the snapshot before
    4. _state/snapshot.json = n             replaced only if it is still the one planned on: now readers see it
    5. deletes (replaced files, staged items), then the plan shrinks to a stub that says done: the commit is closed

The snapshot moves before the deletes, so that a reader who finds a file gone always finds a newer snapshot too. A
stub stays behind, so that a late writer who wakes up cannot take the same number again.
"""

import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import IndexLocked, JobError
from pipeline.index import staging
from pipeline.index.commit_plan import FOLDER, Plan, open_commit
from pipeline.index.drops import Drops, is_dropped, kept
from pipeline.index.names import is_plain, is_table_file, reading, table_file
from pipeline.index.snapshot import SNAPSHOT, Encoder, Index, Snapshot, schema_of, storage_trouble
from pipeline.index.staging import Rows
from pipeline.index.table_files import in_order, parquet
from pipeline.index.tables import COMMITTED_TABLES, TABLES, VECTOR_TABLES, sound
from pipeline.storage.base import TEMP_FOLDER

T = TypeVar("T")

_GROUP_BYTES = 256 << 20  # staged bytes that become one file per table; bounds the memory of a commit
_THREADS = 16
_KEPT_STUBS = 100
_EMPTY_GROUP = 9999  # no commit has that many groups of 256 MB


def commit(
    index: Index,
    inputs: Iterable[str] = (),
    videos: pa.Table | None = None,
    errors: pa.Table | None = None,
    drops: Drops | None = None,
    encoder: Encoder | None = None,
    merges: Mapping[str, Sequence[Sequence[str]]] | None = None,
) -> Snapshot:
    """One atomic step of the index; the new snapshot is in force when this returns.

    Adds the rows of the staged items `inputs`, the `errors`, and the `videos` rows, which replace those of the same
    video_id; leaves out `drops` from what was there before (never from what this commit adds). `encoder` becomes the
    index's encoder. `merges` names old files to join: table -> groups of file names.
    The caller holds the lock and has called `roll_forward`. IndexLocked when another writer was faster.
    """
    with storage_trouble(index):
        return _commit(index, sorted(set(inputs)), videos, errors, drops or {}, encoder, merges or {})


def _commit(
    index: Index,
    keys: list[str],
    videos: pa.Table | None,
    errors: pa.Table | None,
    drops: Drops,
    encoder: Encoder | None,
    merges: Mapping[str, Sequence[Sequence[str]]],
) -> Snapshot:
    before, tag = index.tagged_snapshot()
    body = {name: rows for name, rows in (("videos", videos), ("errors", errors)) if rows is not None and len(rows)}
    plan = Plan(
        commit=before.commit + 1,
        token=secrets.token_hex(8),
        inputs=_groups(index, keys, needed=bool(body)),
        has_body=bool(body),
        drops={table: sorted(set(rows), key=str) for table, rows in drops.items() if rows},
        encoder=encoder or before.encoder,
    )
    plan = _with_rewrites(index, plan, before, _dropped(plan, body), merges)
    if not (plan.inputs or plan.rewrites) and plan.encoder == before.encoder:
        return before  # nothing to add, and nothing of what is dropped was there
    _refuse_mixed_encoders(index, plan, before)
    if body:
        index.storage.write_atomic(plan.body_path, staging.encode_item(body))
    # Every group is built before the commit is opened: a plan that cannot be carried out would block the index.
    first = None
    for number in range(len(plan.inputs)):
        rows = _group_rows(index, plan, number)
        first = rows if number == 0 else first
    if not index.storage.create_exclusive(plan.path, plan.to_json()):
        raise IndexLocked(f"commit {plan.commit} of {index.url} was made by another run")
    return _finish(index, plan, before, tag, first)


def roll_forward(index: Index) -> int | None:
    """Finish what a crash left open, then remove what no snapshot names. Returns the commit it finished, if any.

    Called under the lock before any other work. Staged items stay: they are work done.
    """
    with storage_trouble(index):
        before, tag = index.tagged_snapshot()
        plan = open_commit(index, before)
        after = before
        if plan is not None and plan.commit > before.commit:
            after = _finish(index, plan, before, tag)
        elif plan is not None:
            _close(index, plan)
        _sweep(index, after)
        return plan.commit if plan else None


def _finish(index: Index, plan: Plan, before: Snapshot, tag: str, first: Rows | None = None) -> Snapshot:
    """Steps 3 to 5. Doing them again writes the same bytes under the same names."""
    body = staging.read_item(index.storage, plan.body_path) if plan.has_body else {}
    files = {table: dict(before.files.get(table, {})) for table in COMMITTED_TABLES}
    for number in range(len(plan.inputs)):
        for table, rows in (first if number == 0 and first else _group_rows(index, plan, number)).items():
            _publish(index, files, table, table_file(plan.commit, number), rows)
    dropped = _dropped(plan, body)
    for table, rewrites in plan.rewrites.items():
        for name, old_names in rewrites.items():
            old = [index.read_at(_only(before, table, old_name), table) for old_name in old_names]
            _publish(index, files, table, name, kept(table, pa.concat_tables(old), dropped.get(table, ())))
    for table, names in plan.removes.items():
        for name in names:
            del files[table][name]
    for table in COMMITTED_TABLES:
        if not files[table] and (plan.encoder or table not in VECTOR_TABLES):
            _publish_empty(index, files, table, plan)
    after = Snapshot(plan.commit, {table: names for table, names in files.items() if names}, plan.encoder)
    if index.storage.replace_if(SNAPSHOT, after.to_json(), tag) is None:
        raise IndexLocked(f"the snapshot of {index.url} was changed by another run during commit {plan.commit}")
    _close(index, plan)
    return after


def _close(index: Index, plan: Plan) -> None:
    """Step 5. What goes is in no snapshot any more."""
    index.storage.delete(*(f"{table}/{name}" for table, names in plan.removes.items() for name in names))
    index.storage.delete(*(staging.staged_path(key) for group in plan.inputs for key in group))
    if plan.has_body:
        index.storage.delete(plan.body_path)
    index.storage.write_atomic(plan.path, Plan(plan.commit, plan.token, done=True).to_json())
    index.storage.delete(Plan(plan.commit - _KEPT_STUBS, "").path)


def _sweep(index: Index, snapshot: Snapshot) -> None:
    """Remove table files outside the snapshot, bodies of commits that never opened, and temporary files."""
    for table in COMMITTED_TABLES:
        named = snapshot.files.get(table, {})
        strays = [name for name in index.storage.list(table) if is_table_file(name) and name not in named]
        index.storage.delete(*(f"{table}/{name}" for name in strays))
    bodies = [n for n in index.storage.list(FOLDER) if n.endswith(".parquet") and is_plain(n.removesuffix(".parquet"))]
    index.storage.delete(*(f"{FOLDER}/{name}" for name in bodies))
    index.storage.delete(*(f"{TEMP_FOLDER}/{name}" for name in index.storage.list(TEMP_FOLDER) if is_plain(name)))


def _groups(index: Index, keys: list[str], needed: bool) -> tuple[tuple[str, ...], ...]:
    """Staged items in groups of bounded size; at least one group when `needed`."""
    sizes = index.storage.list(staging.FOLDER)
    groups: list[list[str]] = [[]] if needed or keys else []
    room = _GROUP_BYTES
    for key in keys:
        size = sizes.get(f"{key}.parquet")
        if size is None:
            raise JobError(f"staged item {key} is not in {index.url}/{staging.FOLDER}")
        if size > room and groups[-1]:
            groups.append([])
            room = _GROUP_BYTES
        groups[-1].append(key)
        room -= size
    return tuple(tuple(group) for group in groups)


def _group_rows(index: Index, plan: Plan, number: int) -> Rows:
    """The rows one group of staged items adds, table by table."""
    paths = [staging.staged_path(key) for key in plan.inputs[number]]
    if number == 0 and plan.has_body:
        paths.append(plan.body_path)
    items = _in_threads(lambda path: staging.read_item(index.storage, path), paths)
    schemas = Snapshot(encoder=plan.encoder)
    rows: Rows = {}
    for table in COMMITTED_TABLES:
        schema = schema_of(schemas, table)
        with reading("rows of today's schema", f"{index.url}: what was staged for {table}"):
            parts = [_as_now(item.pop(table), schema) for item in items if table in item]
            if parts and sum(map(len, parts)):
                rows[table] = sound(table, pa.concat_tables(parts).cast(schema))  # cast: without Parquet's field ids
    return rows


def _as_now(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows in today's schema: what an earlier version staged has null in columns added since."""
    if rows.schema.equals(schema):
        return rows
    columns = [rows[f.name] if f.name in rows.column_names else pa.nulls(len(rows), f.type) for f in schema]
    return pa.table(columns, names=schema.names).cast(schema)


def _dropped(plan: Plan, body: Rows) -> Drops:
    """The plan's drops, and the videos whose rows the body replaces."""
    if "videos" not in body:
        return plan.drops
    replaced: list[tuple[str, str | None]] = [(video_id, None) for video_id in body["videos"]["video_id"].to_pylist()]
    return {**plan.drops, "videos": [*plan.drops.get("videos", []), *replaced]}


def _with_rewrites(
    index: Index, plan: Plan, before: Snapshot, drops: Drops, merges: Mapping[str, Sequence[Sequence[str]]]
) -> Plan:
    """The plan with the old files it must replace: those that hold a dropped row, and those to be merged."""
    rewrites: dict[str, dict[str, list[str]]] = {}
    for table in COMMITTED_TABLES:
        groups = [list(group) for group in merges.get(table, ())]
        merged = {name for group in groups for name in group}
        if drops.get(table):
            names = sorted(before.files.get(table, {}).keys() - merged)
            groups += [[name] for name in _holding_dropped(index, before, table, names, drops[table])]
        if groups:
            first = len(plan.inputs)
            rewrites[table] = {table_file(plan.commit, first + i): group for i, group in enumerate(groups)}
    removes = {table: sorted(name for group in new.values() for name in group) for table, new in rewrites.items()}
    return replace(plan, rewrites=rewrites, removes=removes)


def _holding_dropped(
    index: Index, before: Snapshot, table: str, names: list[str], drops: Collection[tuple[str, str | None]]
) -> list[str]:
    """Those of the files that hold a dropped row, found by reading their key columns."""

    def holds(name: str) -> bool:
        rows = index.read_at(_only(before, table, name), table, ["video_id", *TABLES[table].subkey])
        return pc.any(is_dropped(table, rows, drops)).as_py() is True

    return [name for name, held in zip(names, _in_threads(holds, names), strict=True) if held]


def _in_threads(work: Callable[[str], T], names: Sequence[str]) -> list[T]:
    """`work` done for each name; by threads only where there are several, because each keeps memory of its own."""
    if len(names) < 2:
        return [work(name) for name in names]
    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        return list(pool.map(work, names))


def _refuse_mixed_encoders(index: Index, plan: Plan, before: Snapshot) -> None:
    """One encoder per index: a commit that brings another must drop every vector of the old one."""
    if before.encoder is None or plan.encoder == before.encoder:
        return
    for table in VECTOR_TABLES:
        for name in before.files.get(table, {}):
            rows = index.read_at(_only(before, table, name), table, ["video_id"])
            left = len(kept(table, rows, plan.drops.get(table, ())))
            if left:
                raise JobError(
                    f"{left} rows of {table}/{name} have vectors of {before.encoder}, this commit brings {plan.encoder}"
                )


def _publish(index: Index, files: dict[str, dict[str, int]], table: str, name: str, rows: pa.Table) -> None:
    if len(rows):
        index.storage.write_atomic(f"{table}/{name}", parquet(table, in_order(table, rows)))
        files[table][name] = len(rows)


def _publish_empty(index: Index, files: dict[str, dict[str, int]], table: str, plan: Plan) -> None:
    """A table without rows has one file without rows: a plain glob of it still reads, with its columns."""
    name = table_file(plan.commit, _EMPTY_GROUP)
    rows = schema_of(Snapshot(encoder=plan.encoder), table).empty_table()
    index.storage.write_atomic(f"{table}/{name}", parquet(table, rows))
    files[table][name] = 0


def _only(snapshot: Snapshot, table: str, name: str) -> Snapshot:
    return replace(snapshot, files={table: {name: snapshot.files[table][name]}})
