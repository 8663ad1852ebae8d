"""One SQL statement over the tables and views of an index, in a DuckDB that reaches nothing but that index."""

import csv
import io
import json
from collections.abc import Callable
from typing import Literal, TypeVar

import duckdb
import pyarrow as pa

from pipeline.errors import UsageError
from pipeline.index.snapshot import Index
from pipeline.index.views import VIEWS
from pipeline.storage.s3 import is_s3, s3

Output = Literal["table", "csv", "json"]
_TABLE_ROWS = 1000
T = TypeVar("T")


def run_sql(index_url: str, sql: str, output: Output) -> str:
    """What `sql` gives, as text that ends with a newline. UsageError when it is no SELECT or DuckDB refuses it."""
    return _selected(index_url, sql, lambda found: _as_text(found, output))


def query(index_url: str, sql: str) -> pa.Table:
    """The same as an Arrow table."""
    return _selected(index_url, sql, lambda found: found.to_arrow_table())


def _selected(index_url: str, sql: str, use: Callable[[duckdb.DuckDBPyRelation], T]) -> T:
    index = Index.open(index_url)
    with duckdb.connect() as connection:
        try:
            _open_views(connection, index)
            if [statement.type for statement in connection.extract_statements(sql)] != [duckdb.StatementType.SELECT]:
                raise UsageError(f"expected one SELECT, got {sql!r}")
            return use(connection.sql(sql))
        except duckdb.Error as error:
            raise UsageError(f"DuckDB refused the statement: {error}") from error


def _open_views(connection: duckdb.DuckDBPyConnection, index: Index) -> None:
    """The views of INDEX/views.sql. An index may come from a stranger: its SQL, and ours, reach only its own folder."""
    place = index.url.rstrip("/")
    if is_s3(place):
        connection.register_filesystem(s3())
    quoted = place.replace("'", "''")
    connection.execute(f"SET VARIABLE index_url = '{quoted}'")
    connection.execute(f"SET allowed_directories = ['{quoted}/']")
    for setting in ("enable_external_access", "autoinstall_known_extensions", "python_enable_replacements"):
        connection.execute(f"SET {setting} = false")
    connection.execute("SET lock_configuration = true")
    connection.execute(index.storage.read_bytes(VIEWS).decode())


def _as_text(found: duckdb.DuckDBPyRelation, output: Output) -> str:
    if output == "table":
        return f"{found.limit(_TABLE_ROWS)}\n"
    rows = found.to_arrow_table().to_pylist()
    if output == "json":
        return "".join(json.dumps(row, default=str, ensure_ascii=False) + "\n" for row in rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(found.columns)
    writer.writerows(map(_cell, row.values()) for row in rows)
    return text.getvalue()


def _cell(value: object) -> object:
    """Lists and structs as JSON, so that another program can read them back."""
    return json.dumps(value, default=str, ensure_ascii=False) if isinstance(value, list | dict) else value
