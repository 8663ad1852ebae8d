"""The index as readers see it: a snapshot names the files of each table, and reading follows the snapshot.

    INDEX/<table>/c<commit>-g<group>.parquet    rows, sorted by video_id
    INDEX/runs/<run_id>.parquet                 a log, one file a run, outside commits
    INDEX/_state/snapshot.json                  the commit the tables stand at, and their files
    INDEX/_state/{commits,staging,tmp}/         open work

Writing is commits.py. A file of an older snapshot may vanish under a reader: it then starts over with the newer one.
"""

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
from pipeline.index.schemas import SCHEMA_VERSION, TABLES, table_schema
from pipeline.storage.places import Storage, check_writable, open_storage

SNAPSHOT = "_state/snapshot.json"
_READ_TRIES = 20

T = TypeVar("T")


@dataclass(frozen=True)
class Encoder:
    """The one encoder whose vectors the index holds."""

    encoder_id: str
    dim: int


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
        try:
            fields = json.loads(data)
            version = fields["schema_version"]
            if version > SCHEMA_VERSION:
                raise UsageError(
                    f"{url} was written with schema version {version}; this program reads up to {SCHEMA_VERSION}"
                )
            encoder = fields.pop("encoder")
            return cls(**fields, encoder=Encoder(**encoder) if encoder else None)
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{url}/{SNAPSHOT} is not a snapshot of an index: {error}") from error


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
        rows = ds.dataset(paths, schema=schema, format="parquet", filesystem=self._arrow)
        return rows.to_table(columns=list(columns) if columns is not None else None, filter=filter)

    def batches_at(self, snapshot: Snapshot, table: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Rows of one table in a given snapshot, a few thousand at a time, read little further than asked."""
        for path in snapshot.paths(table):
            with self._arrow.open_input_file(path) as source:
                yield from pq.ParquetFile(source).iter_batches(8192, columns=list(columns), use_threads=False)

    def read_file(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One Parquet file as it is, with the schema it has."""
        return pq.read_table(path, columns=list(columns) if columns is not None else None, filesystem=self._arrow)

    def open_parquet(self, path: str, footer: pq.FileMetaData | None = None) -> pq.ParquetFile:
        """One Parquet file, open for reading by row group; its footer is read now unless it is given."""
        return pq.ParquetFile(path, metadata=footer, filesystem=self._arrow)

    def run_paths(self) -> list[str]:
        return [f"runs/{name}" for name in self.storage.list("runs") if name.endswith(".parquet")]

    @functools.cached_property
    def _arrow(self) -> Any:
        return self.storage.arrow()


def schema_of(snapshot: Snapshot, table: str) -> pa.Schema:
    """Schema of `table` in an index with this snapshot's encoder (width 1 while there is none, hence no vector)."""
    if table not in TABLES:
        raise UsageError(f"no table {table!r}; expected one of {', '.join(TABLES)}")
    return table_schema(table, snapshot.encoder.dim if snapshot.encoder else 1)
