"""How the rows of a table lie in a file: their order, the compression, what has a dictionary."""

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.index.tables import TABLES


def in_order(table: str, rows: pa.Table) -> pa.Table:
    return rows.sort_by([(column, "ascending") for column in TABLES[table].order]).combine_chunks()


def parquet(table: str, rows: pa.Table) -> bytes:
    """A table file. Vectors are plain under zstd: dictionaries cost there, and DuckDB cannot read byte-stream-split.

    Half floats hardly compress, so theirs is a level that leaves literals as they are: 9% larger, read a third faster.
    """
    buffer = io.BytesIO()
    columns = [name for name in rows.column_names if name in TABLES[table].repeating]
    options: dict[str, Any] = {"row_group_size": TABLES[table].row_group_rows, "use_dictionary": columns}
    if "embedding" in rows.column_names:
        options["compression_level"] = {"embedding.list.element": -1}
    flat = [f.name for f in rows.schema if not pa.types.is_nested(f.type) and f.name not in ("thumbnail", "caption")]
    pq.write_table(rows, buffer, compression="zstd", write_statistics=flat, store_schema=True, **options)
    return buffer.getvalue()
