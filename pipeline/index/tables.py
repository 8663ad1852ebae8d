"""The tables: what analysts may rely on, each described once, in one `Table` value.

Columns are only ever added. Commits, the audit, views, purge and tests read these values: another table is another
value in TABLES, and the code that fills it.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.types import STATUSES, TARGET_FORM, Kind, Target

SCHEMA_VERSION = 3
"""2: videos have bytes_read, answers question_truncated and abstain_below.
3: videos have path, reason and content_run_id; a table shots."""

_US = pa.timestamp("us", tz="UTC")
_F64, _I32, _I64, _STR, _BOOL = pa.float64(), pa.int32(), pa.int64(), pa.string(), pa.bool_()


VECTOR = None
"""In place of a column's type: an embedding, as wide as the index's encoder makes it."""


def embedding_type(dim: int) -> pa.DataType:
    """A vector column: FixedSizeList<float16, dim>; the item field is not nullable, the vector may be."""
    return pa.list_(pa.field("item", pa.float16(), nullable=False), dim)


FINGERPRINTS = pa.list_(pa.struct([pa.field("stage", _STR), pa.field("fingerprint", _STR)]))
"""Recipe of each stage; stage is `sample`, `embed`, `caption:<prompt_id>` or `answer:<question_id>:<scope>`."""

EVIDENCE = pa.list_(
    pa.struct(
        [pa.field("segment_id", _STR), pa.field("start_s", _F64), pa.field("end_s", _F64), pa.field("score", _F64)]
    )
)


@dataclass(frozen=True)
class Column:
    """One column. `repeats`: few values for many rows, so that a dictionary saves space."""

    name: str
    kind: pa.DataType | None
    description: str
    nullable: bool = True
    repeats: bool = False

    def field(self, dim: int) -> pa.Field:
        kind = embedding_type(dim) if self.kind is VECTOR else self.kind
        return pa.field(self.name, kind, nullable=self.nullable, metadata={"description": self.description})


@dataclass(frozen=True)
class Table:
    """A table: its columns, what tells its rows apart, and how they lie in its files.

    `made_by` is the kind of target whose rows it holds; `shots` is the pass of jobs.shots. Tables of content are filled
    by staged items and give way with their video; the ledger and the logs are written by the driver.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]  # columns that no two rows share; empty: a log
    order: tuple[str, ...]  # columns that rows are sorted by
    made_by: Kind | Literal["driver", "run", "shots"]
    subkey: tuple[str, ...] = ()  # columns that tell apart what a video was asked; a drop names them joined by ":"
    row_group_rows: int = 65_536  # so that a column of a group stays near 16 MB, and readers can skip by video_id

    @property
    def is_content(self) -> bool:
        return self.made_by not in ("driver", "run")

    @cached_property
    def has_vectors(self) -> bool:
        return any(column.kind is VECTOR for column in self.columns)

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(column.name for column in self.columns)

    @cached_property
    def repeating(self) -> frozenset[str]:
        return frozenset(column.name for column in self.columns if column.repeats)

    def schema(self, dim: int = 1) -> pa.Schema:
        """Its Arrow schema, with embeddings of width `dim`."""
        metadata = {"table": self.name, "schema_version": str(SCHEMA_VERSION)}
        return pa.schema([column.field(dim) for column in self.columns], metadata=metadata)


_VIDEO_COLUMNS = (
    Column("video_id", _STR, "video it lies in", False, repeats=True),
    Column("video_version", _STR, "version of the video it was made from", False, repeats=True),
    Column("uri", _STR, "URI of the video", False, repeats=True),
)


_PROVENANCE = (
    Column("fingerprint", _STR, "recipe it was made with", False, repeats=True),
    Column("run_id", _STR, "run that made it", False, repeats=True),
    Column("indexed_at", _US, "when it was made", False),
)


_PRUNING = (
    Column("finish_reason", _STR, "stop, or length when the token limit cut it", repeats=True),
    Column("model_id", _STR, "Video LLM", False, repeats=True),
    Column("model_revision", _STR, "its revision", False, repeats=True),
    Column("prune_method", _STR, "how visual tokens were pruned", False, repeats=True),
    Column("prune_p", _F64, "the paper's p", False),
    Column("n_visual_tokens", _I32, "visual tokens before pruning", False),
    Column("visual_tokens_per_layer", pa.list_(_I32), "visual tokens entering each layer", False),
    Column("llm_flops_ratio", _F64, "LLM prefill FLOPs over unpruned, attention matmuls not counted"),
    Column("llm_flops_with_attention_ratio", _F64, "the same, attention matmuls counted"),
    Column("end_to_end_flops_ratio", _F64, "encoder, vision, projector and LLM FLOPs over unpruned"),
    Column("prefill_ms", _F64, "milliseconds of prefill"),
    Column("decode_ms", _F64, "milliseconds of decoding"),
)

VIDEOS = Table(
    "videos",
    (
        Column("video_id", _STR, "digest of the URI: stable while the file keeps its place", False, repeats=True),
        Column(
            "uri", _STR, "file:// with RFC 3986 escaping of the path's bytes, or s3://bucket/key", False, repeats=True
        ),
        Column("name", _STR, "file name, for display only", False),
        Column("path", _STR, "path below its root, for people; null before v. 3"),
        Column("root", _STR, "URI of the root that listed it", False, repeats=True),
        Column("version", _STR, "changes with size, modification time or etag", False, repeats=True),
        Column("size_bytes", _I64, "size when listed"),
        Column("container", _STR, "demuxer that read it", repeats=True),
        Column("codec", _STR, "video codec", repeats=True),
        Column("width", _I32, "pixels, as coded, before rotation"),
        Column("height", _I32, "pixels, as coded, before rotation"),
        Column("rotation", _I32, "degrees clockwise a viewer turns the picture: 0, 90, 180 or 270"),
        Column("fps", _F64, "mean frames a second"),
        Column("is_vfr", _BOOL, "frame intervals vary"),
        Column("duration_s", _F64, "end of the last frame, from the first decodable one"),
        Column("recorded_at", _US, "creation time the container states, if any"),
        Column("decoder", _STR, "what decoded it: decord or pyav", repeats=True),
        Column("decode_coverage", _F64, "decoded span over the span of demuxed video packets"),
        Column("bytes_read", _I64, "fetched from remote storage to index it; null for local files"),
        Column("n_clips", _I32, "clips the plan gave it"),
        Column("status", _STR, "indexed, partial, failed, quarantined, pending or deleted", False, repeats=True),
        Column("error_class", _STR, "why, unless indexed", repeats=True),
        Column("attempts", _I32, "runs that tried this version and failed", False),
        Column("fingerprints", FINGERPRINTS, "recipe of each stage its rows were made with", False),
        Column("reason", _STR, "why it was last decoded: new, changed, retry, redo, pending, returned"),
        Column("content_run_id", _STR, "run that last decoded it; null before v. 3"),
        Column("run_id", _STR, "run that wrote this row", False, repeats=True),
        Column("indexed_at", _US, "when this row was written", False),
    ),
    key=("video_id",),
    order=("video_id",),
    made_by="driver",
)

CLIPS = Table(
    "clips",
    (
        Column("clip_id", _STR, "video_id and clip_index", False, repeats=True),
        *_VIDEO_COLUMNS,
        Column("clip_index", _I32, "0-based place in the video", False),
        Column("start_s", _F64, "start of the window, inclusive", False),
        Column("end_s", _F64, "end of the window, exclusive", False),
        Column("n_frames", _I32, "sampled frames", False),
        Column("n_segments", _I32, "segments", False),
        Column("frame_pts_s", pa.list_(_F64), "presentation times of the sampled frames", False),
        Column("embedding", VECTOR, "mean of the unit frame vectors, not renormalised", False),
        Column("encoder_id", _STR, "encoder and revision", False, repeats=True),
        *_PROVENANCE,
    ),
    key=("clip_id",),
    order=("video_id", "clip_index"),
    made_by="embed",
    row_group_rows=8192,
)

SEGMENTS = Table(
    "segments",
    (
        Column("segment_id", _STR, "clip_id and segment_index", False),
        Column("clip_id", _STR, "clip it lies in", False, repeats=True),
        Column("video_id", _STR, "video it lies in", False, repeats=True),
        Column("video_version", _STR, "version of the video it was made from", False, repeats=True),
        Column("segment_index", _I32, "0-based place in the clip", False),
        Column("start_s", _F64, "time of its first frame, or start of the clip; inclusive", False),
        Column("end_s", _F64, "start of the next segment or end of the clip, exclusive", False),
        Column("n_frames", _I32, "sampled frames", False),
        Column("boundary_score", _F64, "cosine of its first frame with the one before; null at the video's start"),
        Column("embedding", VECTOR, "mean of the unit frame vectors, not renormalised", False),
        Column("encoder_id", _STR, "encoder and revision", False, repeats=True),
        Column("thumbnail", pa.binary(), "JPEG of the best frame, aspect true, long edge 256 px"),
        Column("best_frame_s", _F64, "time of the frame nearest to the mean", False),
        *_PROVENANCE,
    ),
    key=("segment_id",),
    order=("video_id", "clip_id", "segment_index"),
    made_by="embed",
    row_group_rows=4096,
)

FRAMES = Table(
    "frames",
    (
        Column("video_id", _STR, "video", False, repeats=True),
        Column("clip_id", _STR, "clip", False, repeats=True),
        Column("frame_index", _I32, "0-based place in the clip", False),
        Column("pts_s", _F64, "presentation time", False),
        Column("segment_index", _I32, "segment of the clip it belongs to", False),
        Column("embedding", VECTOR, "unit vector", False),
        Column("encoder_id", _STR, "encoder and revision", False, repeats=True),
        Column("fingerprint", _STR, "recipe it was made with", False, repeats=True),
    ),
    key=("clip_id", "frame_index"),
    order=("video_id", "clip_id", "frame_index"),
    made_by="embed",
    row_group_rows=8192,
)

CAPTIONS = Table(
    "captions",
    (
        Column("clip_id", _STR, "clip", False, repeats=True),
        *_VIDEO_COLUMNS,
        Column("start_s", _F64, "start of the clip, inclusive", False),
        Column("end_s", _F64, "end of the clip, exclusive", False),
        Column("prompt_id", _STR, "digest of the prompt", False, repeats=True),
        Column("prompt", _STR, "what the model was asked", False, repeats=True),
        Column("caption", _STR, "what it said", False),
        *_PRUNING,
        *_PROVENANCE,
    ),
    key=("clip_id", "prompt_id"),
    order=("video_id", "clip_id", "prompt_id"),
    made_by="caption",
    subkey=("prompt_id",),
)

ANSWERS = Table(
    "answers",
    (
        Column("question_id", _STR, "digest of the question", False, repeats=True),
        Column("question", _STR, "what was asked", False, repeats=True),
        Column("scope", _STR, "video or clip", False, repeats=True),
        Column("clip_id", _STR, "clip; null when the whole video was asked", repeats=True),
        *_VIDEO_COLUMNS,
        Column("start_s", _F64, "start of what was asked about, inclusive", False),
        Column("end_s", _F64, "its end, exclusive", False),
        Column("answer", _STR, "what the model said; null when it abstained"),
        Column("relevance", _F64, "highest relevance of a segment to the question"),
        Column("evidence", EVIDENCE, "segments the model was shown, most relevant first", False),
        Column("abstained", _BOOL, "nothing in the video was relevant enough to answer from", False),
        Column("abstain_below", _F64, "relevance below which the model is not asked; null when it always is"),
        Column(
            "question_truncated", _BOOL, "too long for the encoder: relevance is of its beginning; null before v. 2"
        ),
        *_PRUNING,
        *_PROVENANCE,
    ),
    key=("video_id", "clip_id", "scope", "question_id"),
    order=("video_id", "question_id", "scope", "clip_id"),
    made_by="answer",
    subkey=("question_id", "scope"),
)

SHOTS = Table(
    "shots",
    (
        *_VIDEO_COLUMNS,
        Column("shot_index", _I32, "0-based place in the video; the shots of a video tile it", False),
        Column("start_s", _F64, "time of its first frame, inclusive", False),
        Column("end_s", _F64, "time of the next shot's first frame, or end of the video, exclusive", False),
        Column("start_frame", _I64, "its first frame, 0-based, of all frames a full decode outputs", False),
        Column("end_frame", _I64, "the frame after its last", False),
        Column("kind", _STR, "how it begins: start (of the video) or cut", False, repeats=True),
        Column("score", _F64, "share of the picture that changed at its beginning; 1 at the video's start", False),
        *_PROVENANCE,
    ),
    key=("video_id", "shot_index"),
    order=("video_id", "shot_index"),
    made_by="shots",
)

ERRORS = Table(
    "errors",
    (
        Column("video_id", _STR, "video", False, repeats=True),
        Column("uri", _STR, "its URI", False, repeats=True),
        Column("version", _STR, "its version", False, repeats=True),
        Column("clip_index", _I32, "first clip of the item that failed; null when the whole video did"),
        Column("stage", _STR, "list, probe, decode, embed, describe, stage or shots", False, repeats=True),
        Column("error_class", _STR, "class of the failure, see docs/running.md", False, repeats=True),
        Column("message", _STR, "what happened", False),
        Column("transient", _BOOL, "a later run tries again by itself", False),
        Column("attempt", _I32, "runs that tried this version and failed, this one included", False),
        Column("run_id", _STR, "run", False, repeats=True),
        Column("at", _US, "when", False),
    ),
    key=(),
    order=("video_id", "at", "clip_index", "stage", "message"),
    made_by="driver",
)

_COUNTS = pa.struct([pa.field(status, _I64) for status in STATUSES])
_STAGES = pa.list_(
    pa.struct([pa.field("stage", _STR), pa.field("items", _I64), pa.field("seconds", _F64)]),
)
RUNS = Table(
    "runs",
    (
        Column("run_id", _STR, "sortable by start time", False, repeats=True),
        Column("started_at", _US, "start", False),
        Column("finished_at", _US, "end", False),
        Column("command", _STR, "job that ran", False, repeats=True),
        Column("config", _STR, "its configuration as JSON", False),
        Column("listed", _I64, "videos listed", False),
        Column("ignored", _I64, "other files seen in folders", False),
        Column("counts", _COUNTS, "videos of the index by status when the run ended", False),
        Column("stages", _STAGES, "items and seconds of work by stage", False),
        Column("versions", pa.list_(pa.struct([pa.field("package", _STR), pa.field("version", _STR)])), "libraries"),
        Column("outcome", _STR, "ok, or the error that ended the run", False),
        Column("exit_code", _I32, "what the job exited with", False),
    ),
    key=("run_id",),
    order=("run_id",),
    made_by="run",
)

TABLES = {table.name: table for table in (VIDEOS, CLIPS, CAPTIONS, SEGMENTS, FRAMES, ANSWERS, SHOTS, ERRORS, RUNS)}
CONTENT_TABLES = tuple(name for name, table in TABLES.items() if table.is_content)
COMMITTED_TABLES = tuple(name for name, table in TABLES.items() if table.made_by != "run")
"""`runs` is a log that each run appends to by itself, so that a run with nothing to do commits nothing."""
VECTOR_TABLES = tuple(name for name, table in TABLES.items() if table.has_vectors)


def table_schema(table: str, dim: int) -> pa.Schema:
    """The schema of `table`, with embeddings of width `dim`."""
    return TABLES[table].schema(dim)


def table_of(target: Target) -> str:
    """The table whose rows are made for this prompt or question."""
    return next(name for name, table in TABLES.items() if table.made_by == target.kind and table.subkey)


_PLAIN = "[0-9A-Za-z][0-9A-Za-z_-]{0,127}"
FORMS = {
    "video_id": "[0-9a-f]{32}",
    "clip_id": "[0-9a-f]{32}-[0-9]{5,9}",
    "segment_id": "[0-9a-f]{32}-[0-9]{5,9}-[0-9]{2,9}",
    "uri": "(file:///|s3://)[^\\x00]*",
    "prompt_id": _PLAIN,
    "question_id": _PLAIN,
    "fingerprint": _PLAIN,
    "run_id": _PLAIN,
    "scope": "video|clip",
}
"""Columns whose text is a name: a row in which it has another form was not written by this program."""


def sound(table: str, rows: pa.Table) -> pa.Table:
    """`rows` as they are. ValueError when they cannot have been written as rows of `table`.

    A null where none may be, text that is no UTF-8, a time no calendar has, or a name of another form.
    """
    rows.validate(full=True)
    schema = table_schema(table, 1)
    for name in rows.column_names:
        column, field = rows[name], schema.field(name)
        if column.null_count and not field.nullable:
            raise ValueError(f"{column.null_count} rows have no {name}")
        if pa.types.is_nested(column.type) and not pa.types.is_struct(column.type) and _nested_nulls(column):
            raise ValueError(f"nulls inside of {name}")
        if column.type == FINGERPRINTS:
            pairs = pc.list_flatten(column)
            _refuse_other_form("stage of fingerprints", pc.struct_field(pairs, "stage"), TARGET_FORM)
            _refuse_other_form("fingerprint", pc.struct_field(pairs, "fingerprint"), _PLAIN)
        if pa.types.is_timestamp(column.type):
            _refuse_strange_times(name, column)
        if name in FORMS:
            _refuse_other_form(name, column, FORMS[name])
    return rows


def _refuse_other_form(name: str, column: pa.ChunkedArray, form: str) -> None:
    if pc.all(pc.match_substring_regex(column, f"^(?:{form})$")).as_py() is False:
        raise ValueError(f"a {name} of another form")


def _nested_nulls(column: pa.ChunkedArray) -> int:
    """Nulls among the values of a list, or among the fields of its structs."""
    values = pc.list_flatten(column)
    parts = values.flatten() if pa.types.is_struct(values.type) else []
    return int(values.null_count + sum(part.null_count for part in parts))


def _refuse_strange_times(name: str, column: pa.ChunkedArray) -> None:
    ends = pc.min_max(column.cast(pa.int64())).as_py()
    if ends["min"] is not None and not 0 <= ends["min"] <= ends["max"] < 253_402_300_800_000_000:  # the year 10000
        raise ValueError(f"a {name} outside of 1970 to 9999")
