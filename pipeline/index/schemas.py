"""One explicit Arrow schema per table: what analysts may rely on (DESIGN section 5).

Columns are only ever added. A description travels with each column. `D` is the encoder's embedding width.
"""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.types import STATUSES, Target

SCHEMA_VERSION = 3
"""2: videos have bytes_read, answers question_truncated and abstain_below.
3: videos have path, reason and content_run_id."""

_US = pa.timestamp("us", tz="UTC")
_F64, _I32, _I64, _STR, _BOOL = pa.float64(), pa.int32(), pa.int64(), pa.string(), pa.bool_()


def _field(name: str, kind: pa.DataType, description: str, nullable: bool = True) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


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


def videos_schema() -> pa.Schema:
    return _table(
        "videos",
        [
            _field("video_id", _STR, "digest of the URI: stable while the file keeps its place", False),
            _field("uri", _STR, "file:// with RFC 3986 escaping of the path's bytes, or s3://bucket/key", False),
            _field("name", _STR, "file name, for display only", False),
            _field("path", _STR, "path below its root, for people; null before v. 3"),
            _field("root", _STR, "URI of the root that listed it", False),
            _field("version", _STR, "changes with size, modification time or etag", False),
            _field("size_bytes", _I64, "size when listed"),
            _field("container", _STR, "demuxer that read it"),
            _field("codec", _STR, "video codec"),
            _field("width", _I32, "pixels, as coded, before rotation"),
            _field("height", _I32, "pixels, as coded, before rotation"),
            _field("rotation", _I32, "degrees clockwise a viewer turns the picture: 0, 90, 180 or 270"),
            _field("fps", _F64, "mean frames a second"),
            _field("is_vfr", _BOOL, "frame intervals vary"),
            _field("duration_s", _F64, "end of the last frame, from the first decodable one"),
            _field("recorded_at", _US, "creation time the container states, if any"),
            _field("decoder", _STR, "what decoded it: decord or pyav"),
            _field("decode_coverage", _F64, "decoded span over the span of demuxed video packets"),
            _field("bytes_read", _I64, "fetched from remote storage to index it; null for local files"),
            _field("n_clips", _I32, "clips the plan gave it"),
            _field("status", _STR, "indexed, partial, failed, quarantined, pending or deleted", False),
            _field("error_class", _STR, "why, unless indexed"),
            _field("attempts", _I32, "runs that tried this version and failed", False),
            _field("fingerprints", FINGERPRINTS, "recipe of each stage its rows were made with", False),
            _field("reason", _STR, "why it was last decoded: new, changed, retry, redo, pending, returned"),
            _field("content_run_id", _STR, "run that last decoded it; null before v. 3"),
            _field("run_id", _STR, "run that wrote this row", False),
            _field("indexed_at", _US, "when this row was written", False),
        ],
    )


def clips_schema(dim: int) -> pa.Schema:
    return _table(
        "clips",
        [
            _field("clip_id", _STR, "video_id and clip_index", False),
            *_video_columns(),
            _field("clip_index", _I32, "0-based place in the video", False),
            _field("start_s", _F64, "start of the window, inclusive", False),
            _field("end_s", _F64, "end of the window, exclusive", False),
            _field("n_frames", _I32, "sampled frames", False),
            _field("n_segments", _I32, "segments", False),
            _field("frame_pts_s", pa.list_(_F64), "presentation times of the sampled frames", False),
            _field("embedding", embedding_type(dim), "mean of the unit frame vectors, not renormalised", False),
            _field("encoder_id", _STR, "encoder and revision", False),
            *_provenance(),
        ],
    )


def segments_schema(dim: int) -> pa.Schema:
    return _table(
        "segments",
        [
            _field("segment_id", _STR, "clip_id and segment_index", False),
            _field("clip_id", _STR, "clip it lies in", False),
            _field("video_id", _STR, "video it lies in", False),
            _field("video_version", _STR, "version of the video it was made from", False),
            _field("segment_index", _I32, "0-based place in the clip", False),
            _field("start_s", _F64, "time of its first frame, or start of the clip; inclusive", False),
            _field("end_s", _F64, "start of the next segment or end of the clip, exclusive", False),
            _field("n_frames", _I32, "sampled frames", False),
            _field(
                "boundary_score", _F64, "cosine of its first frame with the frame before; null at the video's start"
            ),
            _field("embedding", embedding_type(dim), "mean of the unit frame vectors, not renormalised", False),
            _field("encoder_id", _STR, "encoder and revision", False),
            _field("thumbnail", pa.binary(), "JPEG of the best frame, aspect true, long edge 256 px"),
            _field("best_frame_s", _F64, "time of the frame nearest to the mean", False),
            *_provenance(),
        ],
    )


def frames_schema(dim: int) -> pa.Schema:
    return _table(
        "frames",
        [
            _field("video_id", _STR, "video", False),
            _field("clip_id", _STR, "clip", False),
            _field("frame_index", _I32, "0-based place in the clip", False),
            _field("pts_s", _F64, "presentation time", False),
            _field("segment_index", _I32, "segment of the clip it belongs to", False),
            _field("embedding", embedding_type(dim), "unit vector", False),
            _field("encoder_id", _STR, "encoder and revision", False),
            _field("fingerprint", _STR, "recipe it was made with", False),
        ],
    )


def captions_schema() -> pa.Schema:
    return _table(
        "captions",
        [
            _field("clip_id", _STR, "clip", False),
            *_video_columns(),
            _field("start_s", _F64, "start of the clip, inclusive", False),
            _field("end_s", _F64, "end of the clip, exclusive", False),
            _field("prompt_id", _STR, "digest of the prompt", False),
            _field("prompt", _STR, "what the model was asked", False),
            _field("caption", _STR, "what it said", False),
            *_pruning(),
            *_provenance(),
        ],
    )


def answers_schema() -> pa.Schema:
    return _table(
        "answers",
        [
            _field("question_id", _STR, "digest of the question", False),
            _field("question", _STR, "what was asked", False),
            _field("scope", _STR, "video or clip", False),
            _field("clip_id", _STR, "clip; null when the whole video was asked"),
            *_video_columns(),
            _field("start_s", _F64, "start of what was asked about, inclusive", False),
            _field("end_s", _F64, "its end, exclusive", False),
            _field("answer", _STR, "what the model said; null when it abstained"),
            _field("relevance", _F64, "highest relevance of a segment to the question"),
            _field("evidence", EVIDENCE, "segments the model was shown, most relevant first", False),
            _field("abstained", _BOOL, "nothing in the video was relevant enough to answer from", False),
            _field("abstain_below", _F64, "relevance below which the model is not asked; null when it always is"),
            _field(
                "question_truncated", _BOOL, "too long for the encoder: relevance is of its beginning; null before v. 2"
            ),
            *_pruning(),
            *_provenance(),
        ],
    )


def errors_schema() -> pa.Schema:
    return _table(
        "errors",
        [
            _field("video_id", _STR, "video", False),
            _field("uri", _STR, "its URI", False),
            _field("version", _STR, "its version", False),
            _field("clip_index", _I32, "first clip of the item that failed; null when the whole video did"),
            _field("stage", _STR, "list, probe, decode, embed, describe or stage", False),
            _field("error_class", _STR, "class of the failure, see docs/running.md", False),
            _field("message", _STR, "what happened", False),
            _field("transient", _BOOL, "a later run tries again by itself", False),
            _field("attempt", _I32, "runs that tried this version and failed, this one included", False),
            _field("run_id", _STR, "run", False),
            _field("at", _US, "when", False),
        ],
    )


def runs_schema() -> pa.Schema:
    counts = pa.struct([pa.field(status, _I64) for status in STATUSES])
    stages = pa.list_(
        pa.struct([pa.field("stage", _STR), pa.field("items", _I64), pa.field("seconds", _F64)]),
    )
    return _table(
        "runs",
        [
            _field("run_id", _STR, "sortable by start time", False),
            _field("started_at", _US, "start", False),
            _field("finished_at", _US, "end", False),
            _field("command", _STR, "job that ran", False),
            _field("config", _STR, "its configuration as JSON", False),
            _field("listed", _I64, "videos listed", False),
            _field("ignored", _I64, "other files seen in folders", False),
            _field("counts", counts, "videos of the index by status when the run ended", False),
            _field("stages", stages, "items and seconds of work by stage", False),
            _field(
                "versions", pa.list_(pa.struct([pa.field("package", _STR), pa.field("version", _STR)])), "libraries"
            ),
            _field("outcome", _STR, "ok, or the error that ended the run", False),
            _field("exit_code", _I32, "what the job exited with", False),
        ],
    )


def table_schema(table: str, dim: int) -> pa.Schema:
    """The schema of `table`, with embeddings of width `dim`."""
    with_vectors = {"clips": clips_schema, "segments": segments_schema, "frames": frames_schema}
    if table in with_vectors:
        return with_vectors[table](dim)
    return PLAIN_SCHEMAS[table]()


PLAIN_SCHEMAS = {
    "videos": videos_schema,
    "captions": captions_schema,
    "answers": answers_schema,
    "errors": errors_schema,
    "runs": runs_schema,
}
CONTENT_TABLES = ("clips", "captions", "segments", "frames", "answers")
"""Tables whose rows come from decoding; an item's staged file nests one list of rows for each."""
TABLES = ("videos", *CONTENT_TABLES, "errors", "runs")
COMMITTED_TABLES = tuple(table for table in TABLES if table != "runs")
"""`runs` is a log that each run appends to by itself, so that a run with nothing to do commits nothing."""
VECTOR_TABLES = ("clips", "segments", "frames")


def _video_columns() -> list[pa.Field]:
    return [
        _field("video_id", _STR, "video it lies in", False),
        _field("video_version", _STR, "version of the video it was made from", False),
        _field("uri", _STR, "URI of the video", False),
    ]


def _provenance() -> list[pa.Field]:
    return [
        _field("fingerprint", _STR, "recipe it was made with", False),
        _field("run_id", _STR, "run that made it", False),
        _field("indexed_at", _US, "when it was made", False),
    ]


def _pruning() -> list[pa.Field]:
    return [
        _field("finish_reason", _STR, "stop, or length when the token limit cut it"),
        _field("model_id", _STR, "Video LLM", False),
        _field("model_revision", _STR, "its revision", False),
        _field("prune_method", _STR, "how visual tokens were pruned", False),
        _field("prune_p", _F64, "the paper's p", False),
        _field("n_visual_tokens", _I32, "visual tokens before pruning", False),
        _field("visual_tokens_per_layer", pa.list_(_I32), "visual tokens entering each layer", False),
        _field("llm_flops_ratio", _F64, "LLM prefill FLOPs over unpruned, attention matmuls not counted"),
        _field("llm_flops_with_attention_ratio", _F64, "the same, attention matmuls counted"),
        _field("end_to_end_flops_ratio", _F64, "encoder, vision, projector and LLM FLOPs over unpruned"),
        _field("prefill_ms", _F64, "milliseconds of prefill"),
        _field("decode_ms", _F64, "milliseconds of decoding"),
    ]


def _table(name: str, fields: list[pa.Field]) -> pa.Schema:
    return pa.schema(fields, metadata={"table": name, "schema_version": str(SCHEMA_VERSION)})


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
        if pa.types.is_timestamp(column.type):
            _refuse_strange_times(name, column)
        if name in FORMS and pc.all(pc.match_substring_regex(column, f"^(?:{FORMS[name]})$")).as_py() not in (
            True,
            None,
        ):
            raise ValueError(f"a {name} of another form")
    return rows


def _nested_nulls(column: pa.ChunkedArray) -> int:
    """Nulls among the values of a list, or among the fields of its structs."""
    values = pc.list_flatten(column)
    parts = values.flatten() if pa.types.is_struct(values.type) else []
    return int(values.null_count + sum(part.null_count for part in parts))


def _refuse_strange_times(name: str, column: pa.ChunkedArray) -> None:
    ends = pc.min_max(column.cast(pa.int64())).as_py()
    if ends["min"] is not None and not 0 <= ends["min"] <= ends["max"] < 253_402_300_800_000_000:  # the year 10000
        raise ValueError(f"a {name} outside of 1970 to 9999")


def table_of(target: Target) -> str:
    """The table that holds what a prompt or question was answered with."""
    return {"caption": "captions", "answer": "answers"}[target.kind]
