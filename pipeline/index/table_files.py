"""How the rows of a table lie in a file: their order, the compression, what has a dictionary."""

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROW_ORDER = {
    "videos": ("video_id",),
    "clips": ("video_id", "clip_index"),
    "captions": ("video_id", "clip_id", "prompt_id"),
    "segments": ("video_id", "clip_id", "segment_index"),
    "frames": ("video_id", "clip_id", "frame_index"),
    "answers": ("video_id", "question_id", "scope", "clip_id"),
    "errors": ("video_id", "at", "clip_index", "stage", "message"),
    "runs": ("run_id",),
}
_DICTIONARY_COLUMNS = frozenset(
    ["video_id", "video_version", "uri", "root", "version", "container", "codec", "decoder", "status", "error_class"]
    + ["run_id", "clip_id", "encoder_id", "fingerprint", "prompt_id", "prompt", "finish_reason", "model_id", "stage"]
    + ["model_revision", "prune_method", "question_id", "question", "scope", "command"]
)
# Few enough rows that one column of one row group stays near 16 MB, many enough for readers to skip by video_id.
_ROW_GROUP_ROWS = {"segments": 4096, "frames": 8192, "clips": 8192}


def in_order(table: str, rows: pa.Table) -> pa.Table:
    return rows.sort_by([(column, "ascending") for column in ROW_ORDER[table]]).combine_chunks()


def parquet(table: str, rows: pa.Table) -> bytes:
    """A table file. Vectors are plain under zstd: dictionaries cost there, and DuckDB cannot read byte-stream-split.

    Half floats hardly compress, so theirs is a level that leaves literals as they are: 9% larger, read a third faster.
    """
    buffer = io.BytesIO()
    columns = [name for name in rows.column_names if name in _DICTIONARY_COLUMNS]
    options: dict[str, Any] = {"row_group_size": _ROW_GROUP_ROWS.get(table, 65_536), "use_dictionary": columns}
    if "embedding" in rows.column_names:
        options["compression_level"] = {"embedding.list.element": -1}
    flat = [f.name for f in rows.schema if not pa.types.is_nested(f.type) and f.name not in ("thumbnail", "caption")]
    pq.write_table(rows, buffer, compression="zstd", write_statistics=flat, store_schema=True, **options)
    return buffer.getvalue()
