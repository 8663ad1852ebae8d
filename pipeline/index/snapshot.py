"""The index as readers see it: a snapshot names the files of each table, and reading follows the snapshot.

    INDEX/<table>/c<commit>-g<group>.parquet    rows, sorted by video_id
    INDEX/runs/<run_id>.parquet                 a log, one file a run, outside commits
    INDEX/_state/snapshot.json                  the commit the tables stand at, and their files
    INDEX/_state/{commits,staging,tmp}/         open work

Writing is commits.py. A file of an older snapshot may vanish under a reader: it then starts over with the newer one.
"""

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipeline.errors import JobError, UsageError
from pipeline.index.names import MAX_DIM, count, expect, is_plain, is_table_file, reading, record_of
from pipeline.index.tables import SCHEMA_VERSION, TABLES, sound, table_schema
from pipeline.storage.base import Storage, check_writable
from pipeline.storage.places import open_storage

SNAPSHOT = "_state/snapshot.json"
_READ_TRIES = 20

T = TypeVar("T")


@dataclass(frozen=True)
class Encoder:
    """The one encoder whose vectors the index holds."""

    encoder_id: str  # its name, @ and its revision
    dim: int

    @classmethod
    def from_json(cls, record: dict[str, Any] | None) -> "Encoder | None":
        if record is None:
            return None
        name = record["encoder_id"]
        expect(isinstance(name, str) and name.isprintable() and "@" in name and len(name) < 4096, name)
        expect(0 < count(record["dim"]) <= MAX_DIM, record["dim"])
        return cls(name, record["dim"])


@dataclass(frozen=True)
class Snapshot:
    """What the tables are made of. `files`: table -> file name -> number of rows."""

    commit: int = 0
    files: dict[str, dict[str, int]] = field(default_factory=dict)
    encoder: Encoder | None = None
    schema_version: int = SCHEMA_VERSION

    def paths(self, table: str) -> list[str]:
        return [f"{table}/{name}" for name in sorted(self.files.get(table, {}))]

    def n_rows(self, table: str) -> int:
        return sum(self.files.get(table, {}).values())

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes, url: str) -> "Snapshot":
        with reading("a snapshot of an index", f"{url}/{SNAPSHOT}"):
            fields = record_of(data)
            version = count(fields["schema_version"])
            if version > SCHEMA_VERSION:
                raise UsageError(
                    f"{url} was written with schema version {version}; this program reads up to {SCHEMA_VERSION}"
                )
            files: dict[str, dict[str, int]] = {}
            for table, rows in fields["files"].items():
                expect(table in TABLES, table)
                files[table] = {name: count(n) for name, n in rows.items()}
                for name in rows:
                    expect(is_table_file(name), name)
            return cls(count(fields["commit"]), files, Encoder.from_json(fields["encoder"]), version)


class Index:
    """An index at a URL, open for reading."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.url = storage.url

    @classmethod
    def open(cls, url: str) -> "Index":
        """An existing index. UsageError when there is none, or it is newer than this program."""
        index = cls(open_storage(url))
        index.snapshot()
        return index

    @classmethod
    def create(cls, url: str, encoder: Encoder | None = None) -> "Index":
        """An existing index, or a new empty one. UsageError when the place cannot be written."""
        index = cls(open_storage(url))
        try:
            exists = index.storage.exists(SNAPSHOT)
        except OSError as error:
            raise UsageError(f"cannot reach {url}: {error}") from error
        if not exists:
            check_writable(index.storage)
            index.storage.create_exclusive(SNAPSHOT, Snapshot(encoder=encoder).to_json())
        index.snapshot()
        return index

    def snapshot(self) -> Snapshot:
        """The snapshot now in force."""
        return self.tagged_snapshot()[0]

    def tagged_snapshot(self) -> tuple[Snapshot, str]:
        """The snapshot, and the tag a commit needs to replace exactly this one."""
        try:
            data, tag = self.storage.read_tagged(SNAPSHOT)
        except FileNotFoundError as error:
            raise UsageError(f"{self.url} is not an index: it has no {SNAPSHOT}") from error
        except OSError as error:
            raise UsageError(f"cannot read the index at {self.url}: {error}") from error
        return Snapshot.from_json(data, self.url), tag

    def read(self, table: str, columns: Sequence[str] | None = None, filter: pc.Expression | None = None) -> pa.Table:
        """Rows of one table in the snapshot now in force; `filter` is a pyarrow.compute expression."""
        return self.at_one_snapshot(lambda snapshot: self.read_at(snapshot, table, columns, filter))

    def at_one_snapshot(self, work: Callable[[Snapshot], T]) -> T:
        """`work` done wholly on one snapshot; done again with a newer one when a commit removed files under it."""
        seen: Snapshot | None = None
        for _ in range(_READ_TRIES):
            snapshot = self.snapshot()
            if snapshot == seen:
                break
            try:
                return work(snapshot)
            except FileNotFoundError:
                seen = snapshot
        raise JobError(f"files of {self.url} that its snapshot names are missing; jobs.verify says which")

    def read_at(
        self,
        snapshot: Snapshot,
        table: str,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,
    ) -> pa.Table:
        """Rows of one table in a given snapshot. FileNotFoundError when a newer commit removed its files."""
        schema = schema_of(snapshot, table)
        paths = self.run_paths() if table == "runs" else snapshot.paths(table)
        if not paths:
            empty = schema.empty_table()
            return empty.select(list(columns)) if columns is not None else empty
        with reading("a table that this program wrote", f"{self.url}/{table}"):
            dataset = self.dataset(paths, schema)
            rows = dataset.to_table(columns=list(columns) if columns is not None else None, filter=filter)
            return sound(table, rows)

    def dataset(self, paths: Sequence[str], schema: pa.Schema) -> ds.Dataset:
        """Parquet files as one table that is not read yet; columns a file lacks are null."""
        files = [self.storage.readable(path) for path in paths]
        return ds.dataset(files, schema=schema, format="parquet", filesystem=self._arrow)

    def batches_at(self, snapshot: Snapshot, table: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Rows of one table in a given snapshot, a few thousand at a time, read little further than asked."""
        schema = pa.schema([schema_of(snapshot, table).field(name) for name in columns])
        for path in snapshot.paths(table):
            with reading("a table file", f"{self.url}/{path}"), self._open(path) as source:
                for batch in pq.ParquetFile(source).iter_batches(8192, columns=list(columns), use_threads=False):
                    yield from sound(table, pa.Table.from_batches([batch]).cast(schema)).to_batches()

    def read_file(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One Parquet file as it is, with the schema it has."""
        with reading("a table file", f"{self.url}/{path}"), self._open(path) as source:
            file = pq.ParquetFile(source)
            if missing := set(columns or ()) - set(file.schema_arrow.names):
                raise ValueError(f"it has no column {sorted(missing)[0]}")
            return file.read(list(columns) if columns is not None else None)

    def footer(self, path: str) -> pq.FileMetaData:
        """What one Parquet file holds: its row groups, and where each lies."""
        with reading("a table file", f"{self.url}/{path}"), self._open(path) as source:
            return pq.ParquetFile(source).metadata

    def row_group(self, path: str, footer: pq.FileMetaData, group: int, columns: Sequence[str]) -> pa.Table:
        """Columns of one row group, whose file has `footer`."""
        with reading("a table file", f"{self.url}/{path}"), self._open(path) as source:
            file = pq.ParquetFile(source, metadata=footer)
            return sound(path.partition("/")[0], file.read_row_group(group, list(columns), use_threads=False))

    def _open(self, path: str) -> Any:
        return self._arrow.open_input_file(self.storage.readable(path))

    def run_paths(self) -> list[str]:
        names = [name for name in self.storage.list("runs") if name.endswith(".parquet")]
        return [f"runs/{name}" for name in names if is_plain(name.removesuffix(".parquet"))]

    @functools.cached_property
    def _arrow(self) -> Any:
        return self.storage.arrow()


def schema_of(snapshot: Snapshot, table: str) -> pa.Schema:
    """Schema of `table` in an index with this snapshot's encoder (width 1 while there is none, hence no vector)."""
    if table not in TABLES:
        raise UsageError(f"no table {table!r}; expected one of {', '.join(TABLES)}")
    return table_schema(table, snapshot.encoder.dim if snapshot.encoder else 1)


@contextlib.contextmanager
def storage_trouble(index: Index) -> Iterator[None]:
    """Storage that fails in the middle (full, permission lost, away) stops the job; the next run picks up there."""
    try:
        yield
    except OSError as error:
        raise JobError(f"storage of {index.url} failed: {error}; what is staged is kept, run again") from error
