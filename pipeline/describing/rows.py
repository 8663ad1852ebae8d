"""From an embedded clip and the engine's results to rows of the tables, typed by their schemas."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

import adatp
from pipeline.config import ModelIdentity
from pipeline.describing.embed import EmbeddedClip
from pipeline.index.tables import embedding_type, table_schema
from pipeline.items.evidence import FloatArray
from pipeline.items.item import Shown
from pipeline.types import Source, Target, clip_id_of, segment_id_of

Record = dict[str, Any]


@dataclass(frozen=True)
class Provenance:
    """What every row of a run says about where it came from."""

    run_id: str
    encoder: ModelIdentity
    model: ModelIdentity
    prune: str
    p: float
    dim: int
    abstain_below: float | None = None  # relevance below which a question is not put to the model
    cut_questions: frozenset[Target] = frozenset()  # those whose text is longer than the encoder reads


def build_table(name: str, dim: int, records: Sequence[Record], vectors: FloatArray | None = None) -> pa.Table:
    """Records -> a table of exactly the schema of `name`; `vectors` (rows, dim) become its embedding column."""
    schema = table_schema(name, dim)
    plain = pa.schema([f for f in schema if f.name != "embedding"])
    table = pa.Table.from_pylist(list(records), schema=plain)
    if vectors is not None:
        flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float16).reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(flat, type=embedding_type(dim))
        table = table.append_column(schema.field("embedding"), column)
    return table.select(schema.names).cast(schema)


def clip_tables(
    source: Source, clips: Sequence[EmbeddedClip], fingerprint: str, by: Provenance, keep_frames: bool
) -> dict[str, pa.Table]:
    """The rows that embedding alone decides: clips, segments and (unless left out) frames."""
    clip_records, segment_records, frame_records = [], [], []
    common = {"encoder_id": by.encoder.id, **_provenance(fingerprint, by)}
    for clip in clips:
        clip_id = clip_id_of(source.video_id, clip.clip.clip_index)
        clip_records.append(
            {
                "clip_id": clip_id,
                **_video(source),
                "clip_index": clip.clip.clip_index,
                "start_s": clip.clip.start_s,
                "end_s": clip.clip.end_s,
                "n_frames": len(clip.vectors),
                "n_segments": len(clip.lengths),
                "frame_pts_s": clip.clip.pts_s,
                **common,
            }
        )
        segment_records += [{**record, **common} for record in _segment_records(source, clip, clip_id)]
        frame_records += _frame_records(source, clip, clip_id, by.encoder.id, fingerprint)
    tables = {
        "clips": build_table("clips", by.dim, clip_records, np.stack([c.vectors.mean(axis=0) for c in clips])),
        "segments": build_table("segments", by.dim, segment_records, np.concatenate([c.means for c in clips])),
    }
    if keep_frames:
        tables["frames"] = build_table("frames", by.dim, frame_records, np.concatenate([c.vectors for c in clips]))
    return tables


def caption_record(
    source: Source,
    clip: tuple[int, float, float],
    target: Target,
    prompt: str,
    fingerprint: str,
    by: Provenance,
    result: adatp.Result,
) -> Record:
    """`clip` is (clip_index, start_s, end_s)."""
    index, start_s, end_s = clip
    return {
        "clip_id": clip_id_of(source.video_id, index),
        **_video(source),
        "start_s": start_s,
        "end_s": end_s,
        "prompt_id": target.id,
        "prompt": prompt,
        "caption": result.text,
        **_pruning(result, by),
        **_provenance(fingerprint, by),
    }


def answer_record(
    source: Source,
    span_s: tuple[float, float],
    clip_id: str | None,
    shown: Shown,
    question: str,
    fingerprint: str,
    by: Provenance,
    result: adatp.Result | None,
) -> Record:
    """`result` None: the model was not asked, because nothing was relevant enough; `shown` says what came nearest."""
    return {
        "question_id": shown.target.id,
        "question": question,
        "scope": shown.target.scope,
        "clip_id": clip_id,
        **_video(source),
        "start_s": span_s[0],
        "end_s": span_s[1],
        "answer": None if result is None else result.text,
        "relevance": max(shown.relevance),
        "evidence": list(shown.evidence),
        "abstained": result is None,
        "abstain_below": by.abstain_below,
        "question_truncated": shown.target in by.cut_questions,
        **(_not_asked(by) if result is None else _pruning(result, by)),
        **_provenance(fingerprint, by),
    }


def _segment_records(source: Source, clip: EmbeddedClip, clip_id: str) -> list[Record]:
    edges_s = clip.edges_s
    records = []
    for s, (start, length) in enumerate(zip(clip.starts, clip.lengths, strict=True)):
        best = start + int(np.argmax(clip.vectors[start : start + length] @ clip.means[s]))
        records.append(
            {
                "segment_id": segment_id_of(clip_id, s),
                "clip_id": clip_id,
                "video_id": source.video_id,
                "video_version": source.version,
                "segment_index": s,
                "start_s": edges_s[s],
                "end_s": edges_s[s + 1],
                "n_frames": length,
                "boundary_score": clip.boundary_scores[s],
                "thumbnail": clip.clip.thumbnails[best],
                "best_frame_s": clip.clip.pts_s[best],
            }
        )
    return records


def _frame_records(source: Source, clip: EmbeddedClip, clip_id: str, encoder_id: str, fingerprint: str) -> list[Record]:
    segment_of = np.repeat(np.arange(len(clip.lengths)), clip.lengths).tolist()
    return [
        {
            "video_id": source.video_id,
            "clip_id": clip_id,
            "frame_index": i,
            "pts_s": pts_s,
            "segment_index": segment_of[i],
            "encoder_id": encoder_id,
            "fingerprint": fingerprint,
        }
        for i, pts_s in enumerate(clip.clip.pts_s)
    ]


def _video(source: Source) -> Record:
    return {"video_id": source.video_id, "video_version": source.version, "uri": source.uri}


def _provenance(fingerprint: str, by: Provenance) -> Record:
    return {"fingerprint": fingerprint, "run_id": by.run_id, "indexed_at": datetime.now(UTC)}


def _not_asked(by: Provenance) -> Record:
    return {**_model(by), "n_visual_tokens": 0, "visual_tokens_per_layer": []}


def _model(by: Provenance) -> Record:
    return {
        "model_id": by.model.name,
        "model_revision": by.model.revision,
        "prune_method": by.prune,
        "prune_p": by.p,
    }


def _pruning(result: adatp.Result, by: Provenance) -> Record:
    return {
        **_model(by),
        "finish_reason": result.finish_reason,
        "n_visual_tokens": result.n_visual_tokens,
        "visual_tokens_per_layer": list(result.visual_tokens_per_layer),
        "llm_flops_ratio": result.flops.paper,
        "llm_flops_with_attention_ratio": result.flops.with_attention,
        "end_to_end_flops_ratio": result.flops.end_to_end,
        "prefill_ms": result.prefill_ms,
        "decode_ms": result.decode_ms,
    }
