"""Stages of a run as callables from one Arrow row to one Arrow row: a video is decoded, then asked all its questions.

A video that does not decode is data: its row says so, and nothing else is caught. Ray strings the stages together where
--address is given (execution/on_ray.py); without, they run one after the other in this process.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

import pyarrow as pa
import torch

from pipeline.decoding.decoder import Decoder
from pipeline.decoding.sampling import parse_sampling, plan_clips
from pipeline.errors import NoFrames, OutOfMemory, VideoError, WorkerLost
from pipeline.execution.stages import MAX_DEATHS
from pipeline.items.wire import decoded_from_row, decoded_to_row
from pipeline.public_benchmarks.asker import Ask, Asker, ModelChoice
from pipeline.public_benchmarks.settings import Setting
from pipeline.types import Bounds, ClipFrames, Decoded, ResizeRecipe

MAX_FRAMES = 1024

Begin = Callable[[str], int]
"""Which attempt at some work this is: one more than the workers that died of it."""

ASK = pa.struct(
    [
        ("key", pa.string()),
        ("prompt", pa.string()),
        ("stem", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("max_new_tokens", pa.int32()),
    ]
)
VIDEO_SCHEMA = pa.schema([("key", pa.string()), ("path", pa.binary()), ("asks", pa.list_(ASK))])
REPLY = pa.struct(
    [
        ("key", pa.string()),
        ("setting", pa.int32()),
        ("reply", pa.string()),
        ("finish_reason", pa.string()),
        ("n_segments", pa.int32()),
        ("n_visual_tokens", pa.int32()),
        ("n_text_tokens", pa.int32()),
        ("visual_tokens_per_layer", pa.list_(pa.int32())),
        ("llm_flops_ratio", pa.float64()),
        ("llm_with_attention_flops_ratio", pa.float64()),
        ("end_to_end_flops_ratio", pa.float64()),
        ("prefill_ms", pa.float64()),
        ("answer_ms", pa.float64()),
        ("error", pa.string()),
    ]
)
ANSWERED_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("failure", pa.string()),
        ("n_frames", pa.int32()),
        ("decode_ms", pa.float64()),
        ("vision_ms", pa.float64()),
        ("replies", pa.list_(REPLY)),
    ]
)


def video_row(key: str, path: str, asks: Sequence[Ask]) -> pa.Table:
    record = {"key": key, "path": os.fsencode(path), "asks": [asdict(ask) for ask in asks]}
    return pa.Table.from_pylist([record], schema=VIDEO_SCHEMA)


def decode_frames(
    decoder: Decoder, path: str, sampling: str, model: ResizeRecipe, encoder: ResizeRecipe | None
) -> Decoded:
    """The sampled frames of one video as a single clip. Raises a VideoError."""
    policy = parse_sampling(sampling, most=MAX_FRAMES)
    plans = plan_clips(decoder.probe(path, policy), policy)
    decoded = decoder.decode(path, plans, model, encoder)
    if not decoded.clips:
        raise NoFrames("none of its sampled frames decodes")
    return decoded


class DecodeVideo:
    """Video -> its sampled frames, resized for model and encoder."""

    def __init__(self, sampling: str, model: ResizeRecipe, encoder: ResizeRecipe | None, bounds: Bounds) -> None:
        self._decoder, self._sampling, self._resizes = Decoder(bounds), sampling, (model, encoder)

    def __call__(self, row: pa.Table) -> pa.Table:
        began, decoded, failure = time.perf_counter(), Decoded((), "", 0.0, 0), ""
        path = os.fsdecode(row["path"][0].as_py())
        try:
            decoded = decode_frames(self._decoder, path, self._sampling, *self._resizes)
        except VideoError as error:
            failure = f"{type(error).__name__}: {error}"[:1000]
        row = row.append_column("failure", pa.array([failure]))
        return decoded_to_row(row, decoded, time.perf_counter() - began)


class AskVideo:
    """Decoded video -> every setting's reply to every question. Holds the models."""

    def __init__(self, choice: ModelChoice, settings: Sequence[Setting], begin: Begin) -> None:
        self._asker, self._settings, self._begin = Asker(choice), tuple(settings), begin
        self._asker.check(self._settings)

    def __call__(self, row: pa.Table) -> pa.Table:
        key, decoded = row["key"][0].as_py(), decoded_from_row(row)
        record = {
            "key": key,
            "failure": row["failure"][0].as_py(),
            "decode_ms": 1000 * row["decode_seconds"][0].as_py(),
            "replies": [],
        }
        try:
            if self._begin(f"ask-{key}") > MAX_DEATHS:
                raise WorkerLost(f"the process died {MAX_DEATHS} times on this video")
            if decoded.clips:
                record |= self._replies(decoded.clips[0], _asks(row))
        except VideoError as error:
            record["failure"] = f"{type(error).__name__}: {error}"
        return pa.Table.from_pylist([record], schema=ANSWERED_SCHEMA)

    def _replies(self, clip: ClipFrames, asks: list[Ask]) -> dict[str, object]:
        refusals = {ask.key: self._asker.refusal(ask) for ask in asks}
        plain = [ask for ask in asks if not refusals[ask.key]]
        try:
            seen = self._asker.see(clip, self._settings)
            results = self._asker.answer(seen, plain, self._settings)
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(str(error).splitlines()[0]) from error
        replies: list[dict[str, object]] = [
            {"key": key, "setting": place, "reply": "", "error": why}
            for key, why in refusals.items()
            if why
            for place in range(len(self._settings))
        ]
        for (key, setting), result in results.items():
            replies.append(
                {
                    "key": key,
                    "setting": self._settings.index(setting),
                    "reply": result.text,
                    "finish_reason": result.finish_reason,
                    "n_segments": len(self._asker.segments(seen, setting)),
                    "n_visual_tokens": result.n_visual_tokens,
                    "n_text_tokens": result.n_text_tokens,
                    "visual_tokens_per_layer": list(result.visual_tokens_per_layer),
                    "llm_flops_ratio": result.flops.paper,
                    "llm_with_attention_flops_ratio": result.flops.with_attention,
                    "end_to_end_flops_ratio": result.flops.end_to_end,
                    "prefill_ms": result.prefill_ms,
                    "answer_ms": result.decode_ms,
                    "error": "",
                }
            )
        return {"n_frames": len(clip.pts_s), "vision_ms": seen.vision_ms, "replies": replies}


def _asks(row: pa.Table) -> list[Ask]:
    return [
        Ask(
            a["key"], a["prompt"], a["stem"], None if a["choices"] is None else tuple(a["choices"]), a["max_new_tokens"]
        )
        for a in row["asks"][0].as_py()
    ]
