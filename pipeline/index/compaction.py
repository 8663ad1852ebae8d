"""Compaction: many small files of a table become few, as one commit. Nightly runs leave a few files each."""

from pipeline.index.commits import commit
from pipeline.index.snapshot import Index, Snapshot
from pipeline.index.tables import COMMITTED_TABLES

MAX_SMALL_FILES = 32
"""A table is compacted when it has more small files than this: enough that a row is rewritten rarely."""

FILE_BYTES = 128 << 20
"""Size a merged file aims at; a file of at least half of it is left alone."""


def compact(index: Index, max_small_files: int = MAX_SMALL_FILES) -> Snapshot | None:
    """Merge small files of tables that have too many. Returns the new snapshot, or None when nothing was to do.

    The caller holds the lock and has rolled forward.
    """
    snapshot = index.snapshot()
    merges = {}
    for table in COMMITTED_TABLES:
        sizes = index.storage.list(table)
        small = [name for name in sorted(snapshot.files.get(table, {})) if sizes[name] < FILE_BYTES // 2]
        if len(small) > max_small_files:
            merges[table] = _packed(small, sizes)
    return commit(index, merges=merges) if merges else None


def _packed(names: list[str], sizes: dict[str, int]) -> list[list[str]]:
    """Consecutive names in groups of at most FILE_BYTES."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name in names:
        if groups[-1] and filled + sizes[name] > FILE_BYTES:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += sizes[name]
    return groups
