"""Rows that a commit leaves out of what was there before it."""

from collections.abc import Collection, Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.index.tables import CONTENT_TABLES, TABLES

Drops = Mapping[str, Collection[tuple[str, str | None]]]
"""Table -> rows to leave out, as (video_id, subkey). None drops every row of the video in that table."""


def kept(table: str, rows: pa.Table, drops: Collection[tuple[str, str | None]]) -> pa.Table:
    """`rows` of `table` without the dropped ones."""
    return rows.filter(pc.invert(is_dropped(table, rows, drops)))


def is_dropped(table: str, rows: pa.Table, drops: Collection[tuple[str, str | None]]) -> pa.ChunkedArray:
    """A boolean for each row."""
    whole = pa.array([video_id for video_id, subkey in drops if subkey is None], pa.string())
    parts = pa.array([f"{video_id}:{subkey}" for video_id, subkey in drops if subkey is not None], pa.string())
    dropped = pc.is_in(rows["video_id"], whole)
    if len(parts):
        key_columns = [rows[column] for column in ("video_id", *TABLES[table].subkey)]
        dropped = pc.or_(dropped, pc.is_in(pc.binary_join_element_wise(*key_columns, ":"), parts))
    return dropped


def drop_everywhere(video_ids: Iterable[str]) -> Drops:
    """Drops of every content row of these videos, as when their content changed."""
    pairs: list[tuple[str, str | None]] = [(video_id, None) for video_id in video_ids]
    return {table: pairs for table in CONTENT_TABLES}
