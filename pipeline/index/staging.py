"""Staging: what a worker leaves of one item, as one Parquet file that is its own mark of completion.

The file holds a single row. Each column is a table's name; its value is the list of rows (structs) the item adds to
that table. Bytes are made in memory first and published by one atomic write, so a staged file is whole or absent.
"""

import io
import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UsageError
from pipeline.index.names import is_plain, reading, record_of
from pipeline.storage.base import Storage

FOLDER = "_state/staging"
_SUFFIX = ".parquet"

Rows = dict[str, pa.Table]
"""Table name -> rows for it."""


def encode_item(rows: Rows, meta: dict[str, Any] | None = None) -> bytes:
    """One staged file. `rows` carry the schemas of tables.py; `meta` is JSON for whoever reads the file."""
    columns = {table: _nest(table_rows) for table, table_rows in rows.items()}
    item = pa.table(columns).replace_schema_metadata({"meta": json.dumps(meta or {})})
    buffer = io.BytesIO()
    pq.write_table(item, buffer, compression="zstd", use_dictionary=False, write_statistics=False)
    return buffer.getvalue()


def decode_item(data: bytes) -> Rows:
    """The rows `encode_item` was given, table by table."""
    item = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)  # one row: threads cost more than they do
    return {name: pa.Table.from_struct_array(item[name].combine_chunks().flatten()) for name in item.column_names}


def read_item(storage: Storage, path: str) -> Rows:
    """The rows of one staged file. UsageError when no worker staged it so."""
    with reading("what a worker staged, so it must be deleted before the next run", f"{storage.url}/{path}"):
        return decode_item(storage.read_bytes(path))


def staged_meta(storage: Storage, item_key: str) -> dict[str, Any]:
    """The `meta` given to `encode_item`; empty when the file is not one that a worker staged."""
    try:
        with reading("a staged item", item_key):
            schema = pq.read_schema(pa.BufferReader(storage.read_bytes(staged_path(item_key))))
            return record_of(schema.metadata[b"meta"])
    except UsageError:
        return {}


def stage(storage: Storage, item_key: str, data: bytes) -> None:
    """Publish one item. Doing it again, with the same or newer bytes, is harmless."""
    storage.write_atomic(staged_path(item_key), data)


def staged_keys(storage: Storage) -> set[str]:
    """Items that are staged and not yet committed."""
    keys = {name.removesuffix(_SUFFIX) for name in storage.list(FOLDER) if name.endswith(_SUFFIX)}
    return {key for key in keys if is_plain(key)}


def discard(storage: Storage, keys: Iterable[str]) -> None:
    """Delete staged items that no run will ask for again."""
    storage.delete(*map(staged_path, keys))


def staged_path(item_key: str) -> str:
    return f"{FOLDER}/{item_key}{_SUFFIX}"


def clear_staging(storage: Storage) -> None:
    """Remove what no commit took: items of videos that have changed since, or of runs with another recipe."""
    discard(storage, staged_keys(storage))


def _nest(rows: pa.Table) -> pa.Array:
    """A list array of length one that holds all rows as structs."""
    chunks = rows.to_struct_array()
    structs = pa.concat_arrays(chunks.chunks) if chunks.num_chunks else pa.array([], pa.struct(list(rows.schema)))
    return pa.ListArray.from_arrays(pa.array([0, len(structs)], pa.int32()), structs)
