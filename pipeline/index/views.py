"""INDEX/views.sql: the tables as DuckDB views, written beside them from the template views.sql in this package."""

import contextlib
import re
from pathlib import Path

import duckdb
import pyarrow as pa

from pipeline.errors import UsageError
from pipeline.index.snapshot import Index, Snapshot, schema_of
from pipeline.index.tables import CONTENT_TABLES, TABLES, Table

VIEWS = "views.sql"
_TEMPLATE = Path(__file__).parent / "views.sql"


def publish_views(index: Index, tau_s: float) -> None:
    """Write INDEX/views.sql unless it stands there already, word for word. The caller holds the lock.

    `tau_s` is the encoder's threshold: two frames less alike than this are not one segment.
    """
    snapshot = index.snapshot()
    filled = {table for table in TABLES if (index.run_paths() if table == "runs" else snapshot.files.get(table))}
    wanted = views_sql(index.url, snapshot, filled, tau_s).encode()
    with contextlib.suppress(FileNotFoundError, UsageError):  # what is no file of the index's own gives way
        if index.storage.read_bytes(VIEWS) == wanted:
            return
    index.storage.write_atomic(VIEWS, wanted)


def views_sql(url: str, snapshot: Snapshot, filled: set[str], tau_s: float) -> str:
    """The text of views.sql for the index at `url`; tables not in `filled` have no file yet and become empty views."""
    values = {"dim": str(snapshot.encoder.dim if snapshot.encoder else 1), "tau_s": repr(tau_s)}
    sources = {name: _files(url, name) if name in filled else _empty(snapshot, name) for name in TABLES}
    values |= sources
    values["content"] = "\n\n".join(_views(TABLES[name], sources[name], values["dim"]) for name in CONTENT_TABLES)
    return re.sub("@([a-z_]+)@", lambda found: values[found[1]], _TEMPLATE.read_text())  # one pass: a path may hold @


def _views(table: Table, source: str, dim: str) -> str:
    """Two views of a table of content: all of its rows, and those whose video is in the archive."""
    columns = "x.*"
    if table.has_vectors:
        columns += f" REPLACE (x.embedding::FLOAT[{dim}] AS embedding)"
    if "uri" not in table.names:
        columns += ", v.uri"
    at = "start_s" if "start_s" in table.names else "pts_s"
    return f"""CREATE OR REPLACE VIEW all_{table.name} AS
SELECT {columns}, v.path, moment(v.uri, x.{at}) AS link
FROM {source} x JOIN all_videos v USING (video_id);
CREATE OR REPLACE VIEW {table.name} AS FROM all_{table.name} WHERE video_id IN (SELECT video_id FROM videos);"""


def _files(url: str, table: str) -> str:
    """All files of a table. Older files may lack newer columns: those are matched by name."""
    literal = re.sub(r"[*?\[]", r"[\g<0>]", url).replace("'", "''")  # a path of the index is no pattern
    place = f"coalesce(getvariable('index_url'), '{literal}')"
    return f"read_parquet({place} || '/{table}/*.parquet', union_by_name => true)"


def _empty(snapshot: Snapshot, table: str) -> str:
    """No rows of the table's columns: a glob without a file would be an error."""
    schema = pa.schema(  # DuckDB reads half floats from Parquet, but not from Arrow
        [f.with_type(pa.list_(pa.float32())) if f.name == "embedding" else f for f in schema_of(snapshot, table)]
    )
    with duckdb.connect() as connection:
        empty = connection.from_arrow(schema.empty_table())
        columns = [f'NULL::{kind} AS "{name}"' for name, kind in zip(empty.columns, empty.types, strict=True)]
    return f"(SELECT {', '.join(columns)} LIMIT 0)"
