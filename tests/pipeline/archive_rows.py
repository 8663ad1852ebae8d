"""Rows of a made-up index, valid by every rule of jobs.verify, for tests that need tables and no video."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from pipeline.index.snapshot import Encoder
from pipeline.index.staging import Rows
from pipeline.index.tables import table_schema
from pipeline.types import clip_id_of, segment_id_of, video_id_of

DIM = 7
ENCODER = Encoder("tiny@1", DIM)
_NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
_MODEL = {"model_id": "m", "model_revision": "r", "prune_method": "adatp", "prune_p": 1.0, "finish_reason": "stop"}
_MODEL |= {"n_visual_tokens": 30, "visual_tokens_per_layer": [30, 10], "llm_flops_ratio": 0.3, "prefill_ms": 1.0}
_PROMPT = {"prompt_id": "p1", "prompt": "Describe."}
_MADE = {"fingerprint": "f1", "run_id": "run-1", "indexed_at": _NOW}


def uri_of(number: int) -> str:
    return f"file:///archive/{number:03d}.mp4"


def id_of(number: int) -> str:
    return video_id_of(uri_of(number))


def item_rows(number: int, version: str = "1", n_clips: int = 2, caption: str = "a cat", prompt_id: str = "p1") -> Rows:
    """What one item holding all clips of video `number` adds: 3 frames and 2 segments to each clip, one answer."""
    video = {"video_id": id_of(number), "video_version": version, "uri": uri_of(number)}
    vectors = np.random.default_rng(number).standard_normal((n_clips, 3, DIM))
    vectors = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float16)
    rows: dict[str, list[dict[str, object]]] = {t: [] for t in ("clips", "captions", "segments", "frames", "answers")}
    for i in range(n_clips):
        clip_id, start_s = clip_id_of(video["video_id"], i), 3.0 * i
        pts_s = [start_s, start_s + 1, start_s + 2]
        clip = {"clip_id": clip_id, **video, "start_s": start_s, "end_s": start_s + 3}
        mean = vectors[i].mean(axis=0)
        rows["clips"].append(
            {**clip, "clip_index": i, "n_frames": 3, "n_segments": 2, "frame_pts_s": pts_s, "embedding": mean}
            | {"encoder_id": ENCODER.encoder_id, **_MADE}
        )
        text = f"{caption} {version} {i}"
        rows["captions"].append({**clip, **_PROMPT, "prompt_id": prompt_id, "caption": text, **_MODEL, **_MADE})
        for j, (first, last) in enumerate([(0, 1), (1, 3)]):
            rows["segments"].append(
                {"segment_id": segment_id_of(clip_id, j), "clip_id": clip_id, "video_id": video["video_id"]}
                | {"video_version": version, "segment_index": j, "start_s": start_s + first, "end_s": start_s + last}
                | {"n_frames": last - first, "boundary_score": None if i == j == 0 else 0.5, "thumbnail": b"jpeg"}
                | {"embedding": vectors[i, first:last].mean(axis=0), "best_frame_s": start_s + first}
                | {"encoder_id": ENCODER.encoder_id, **_MADE}
            )
        for k in range(3):
            rows["frames"].append(
                {"video_id": video["video_id"], "clip_id": clip_id, "frame_index": k, "pts_s": pts_s[k]}
                | {"segment_index": int(k > 0), "embedding": vectors[i, k], "encoder_id": ENCODER.encoder_id}
                | {"fingerprint": "f1"}
            )
    rows["answers"].append(
        {"question_id": "q1", "question": "What?", "scope": "video", "clip_id": None, **video, "start_s": 0.0}
        | {"end_s": 3.0 * n_clips, "answer": "yes", "relevance": 0.3, "evidence": [], "abstained": False}
        | {**_MODEL, **_MADE}
    )
    return {table: pa.Table.from_pylist(found, schema=table_schema(table, DIM)) for table, found in rows.items()}


def shot_rows(number: int) -> pa.Table:
    """Two shots of a video of six seconds."""
    of = {"video_id": id_of(number), "video_version": "1", "uri": uri_of(number), **_MADE}
    rows = [
        {**of, "shot_index": i, "start_s": 2.0 * i, "end_s": (2.0, 6.0)[i], "start_frame": 50 * i}
        | {"end_frame": (50, 150)[i], "kind": ("start", "cut")[i], "score": 1.0}
        for i in range(2)
    ]
    return pa.Table.from_pylist(rows, schema=table_schema("shots", DIM))


def video_rows(*numbers: int, version: str = "1", status: str = "indexed", n_clips: int = 2) -> pa.Table:
    rows = [
        {"video_id": id_of(n), "uri": uri_of(n), "name": f"{n:03d}.mp4", "root": "file:///archive", "version": version}
        | {"size_bytes": 10, "duration_s": 3.0 * n_clips, "n_clips": n_clips, "status": status, "attempts": 0}
        | {"decode_coverage": 1.0, "run_id": "run-1", "indexed_at": _NOW}
        | {"fingerprints": [{"stage": s, "fingerprint": "f1"} for s in ("sample", "embed", "caption:p1")]}
        for n in numbers
    ]
    return pa.Table.from_pylist(rows, schema=table_schema("videos", DIM))


def error_rows(*numbers: int) -> pa.Table:
    rows = [
        {"video_id": id_of(n), "uri": uri_of(n), "version": "1", "clip_index": None, "stage": "decode"}
        | {"error_class": "NoFrames", "message": "m", "transient": False, "attempt": 1, "run_id": "run-1", "at": _NOW}
        for n in numbers
    ]
    return pa.Table.from_pylist(rows, schema=table_schema("errors", DIM))
