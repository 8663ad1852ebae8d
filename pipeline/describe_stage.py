"""Decoded item -> staged rows: embed, describe, and lay the rows out. One callable from one Arrow row to one Arrow row.

Legend: n frames of a clip, S segments, D embedding width, q questions.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

import adatp
from pipeline.config import DescribeSetup
from pipeline.describe import Describer, Prompting, show_whole_video
from pipeline.embed import EmbeddedClip, embed_clips
from pipeline.encoder import Encoder
from pipeline.errors import OutOfMemory, VideoError, WorkerLost
from pipeline.evidence import FloatArray, choose_shown, segment_relevance
from pipeline.items import (
    Failure,
    Item,
    Receipt,
    Shown,
    decoded_from_row,
    item_from_row,
    staged_to_row,
)
from pipeline.models import resolve_model
from pipeline.rows import Provenance, answer_record, build_table, caption_record, clip_tables
from pipeline.stages import MAX_DEATHS, Begin
from pipeline.staging import encode_item
from pipeline.types import ClipFrames, Decoded, clip_id_of, segment_id_of


class DescribeStage:
    """Decoded item -> staged rows. Holds the encoder and, when anything is asked of it, the Video LLM."""

    def __init__(self, setup: DescribeSetup, begin: Begin) -> None:
        self._setup, self._begin = setup, begin
        device = ("cuda" if torch.cuda.is_available() else "cpu") if setup.device == "auto" else setup.device
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        encoder = resolve_model(setup.encoder.name, "encoder")
        self._encoder = Encoder(encoder.path, device, dtype)
        self._normalisation = encoder.normalisation
        self._questions = _question_vectors(self._encoder, setup.recipe.texts)
        self._describer: Describer | None = None
        if setup.describes:
            model = resolve_model(setup.model.name, "model")
            self._describer = Describer(
                adatp.load(model.path, device=device, dtype=dtype),
                model.normalisation,
                setup.thresholds,
                Prompting(setup.prune, setup.p, setup.max_new_tokens, setup.recipe.texts),
            )
        self._by = Provenance(setup.run_id, setup.encoder, setup.model, setup.prune, setup.p, self._encoder.dim)

    def __call__(self, row: pa.Table) -> pa.Table:
        item, decoded = item_from_row(row), decoded_from_row(row)
        seconds = {"decode": float(row["decode_seconds"][0].as_py())}
        if isinstance(decoded, Failure):
            return staged_to_row(self._receipt(item, None, decoded, seconds), None)
        try:
            if self._begin(f"describe-{item.key}") > MAX_DEATHS:
                raise WorkerLost(f"the describe worker died {MAX_DEATHS} times on this item")
            rows = self._rows(item, decoded, seconds)
        except VideoError as error:
            return staged_to_row(self._receipt(item, decoded, Failure.of("describe", error), seconds), None)
        except torch.OutOfMemoryError as error:
            failure = Failure.of("describe", OutOfMemory(str(error).splitlines()[0]))
            return staged_to_row(self._receipt(item, decoded, failure, seconds), None)
        receipt = self._receipt(item, decoded, None, seconds)
        record = staged_to_row(receipt, None).drop_columns(["staged"]).to_pylist()[0]
        return staged_to_row(receipt, encode_item(rows, record))

    def _rows(self, item: Item, decoded: Decoded, seconds: dict[str, float]) -> dict[str, pa.Table]:
        started = time.perf_counter()
        tables: dict[str, pa.Table] = {}
        records: dict[str, list[dict[str, Any]]] = {"captions": [], "answers": []}
        clips = list(decoded.clips)
        if item.kind == "index":
            embedded = embed_clips(
                self._encoder, self._normalisation, self._setup.thresholds.tau_s, clips, item.has_context
            )
            seconds["embed"] = time.perf_counter() - started
            started = time.perf_counter()
            if embedded:
                fingerprint = item.fingerprints["embed"]
                tables = clip_tables(item.source, embedded, fingerprint, self._by, self._setup.keep_frames)
                records = self._describe_index(item, embedded)
        elif item.kind == "again":
            records = self._describe_again(item, clips)
        else:
            records["answers"] = self._answer_video(item, clips, item.shown)
        seconds["describe"] = time.perf_counter() - started
        for name, rows in records.items():
            if rows:
                tables[name] = build_table(name, self._by.dim, rows)
        return tables

    def _describe_index(self, item: Item, embedded: Sequence[EmbeddedClip]) -> dict[str, list[dict[str, Any]]]:
        """Captions of every clip, and answers when the item is the whole video."""
        questions = [s for s in item.stages if s.startswith("answer:")] if item.n_items == 1 else []
        shown = [show_whole_video(stage, self._questions[stage], item.source.video_id, embedded) for stage in questions]
        segments = [clip.lengths for clip in embedded]
        return self._describe(item, [clip.clip for clip in embedded], segments, shown, [])

    def _describe_again(self, item: Item, clips: Sequence[ClipFrames]) -> dict[str, list[dict[str, Any]]]:
        """Clips that are in the index already: stored segments stand; each clip may also be asked questions."""
        asked = []
        for clip, stored in zip(clips, item.stored, strict=True):
            means: FloatArray = np.asarray(stored.vectors, dtype=np.float32)  # (S, D)
            edges_s = [clip.start_s, *(clip.pts_s[i] for i in np.cumsum(stored.lengths)[:-1]), clip.end_s]
            clip_id = clip_id_of(item.source.video_id, clip.clip_index)
            segments = [(segment_id_of(clip_id, s), edges_s[s], edges_s[s + 1]) for s in range(len(stored.lengths))]
            for question in item.stages:
                if question.startswith("answer:") and question.endswith(":clip"):
                    relevance = segment_relevance(means, self._questions[question])
                    asked.append((clip.clip_index, choose_shown(question, stored.lengths, relevance, segments)))
        return self._describe(item, clips, [stored.lengths for stored in item.stored], [], asked)

    def _answer_video(self, item: Item, clips: Sequence[ClipFrames], shown: Sequence[Shown]) -> list[dict[str, Any]]:
        return self._describe(item, clips, [], shown, [])["answers"]

    def _describe(
        self,
        item: Item,
        clips: Sequence[ClipFrames],
        segments: Sequence[Sequence[int]],
        shown: Sequence[Shown],
        asked: Sequence[tuple[int, Shown]],
    ) -> dict[str, list[dict[str, Any]]]:
        """One batch for the engine: captions of `clips`, questions on all (`shown`) and on one each (`asked`)."""
        captions = [s for s in item.stages if s.startswith("caption:")] if item.kind != "answer" else []
        if self._describer is None or not (captions or shown or asked):
            return {"captions": [], "answers": []}
        visuals = {clip.clip_index: self._describer.encode(clip) for clip in clips}
        requests = [
            self._describer.caption(f"{stage}/{clip.clip_index}", visuals[clip.clip_index], lengths, stage)
            for clip, lengths in zip(clips, segments, strict=False)
            for stage in captions
        ]
        if shown:
            whole = adatp.Visual.cat([visuals[clip.clip_index] for clip in clips])
            requests += [self._describer.answer(f"{s.stage}/video", whole, s) for s in shown]
        requests += [self._describer.answer(f"{s.stage}/{index}", visuals[index], s) for index, s in asked]
        results = self._describer.run(requests)
        texts, spans = self._setup.recipe.texts, {c.clip_index: (c.start_s, c.end_s) for c in clips}
        whole_span = (min(c.start_s for c in clips), max(c.end_s for c in clips))
        answers = [(s, whole_span, None, results[f"{s.stage}/video"]) for s in shown] + [
            (s, spans[index], clip_id_of(item.source.video_id, index), results[f"{s.stage}/{index}"])
            for index, s in asked
        ]
        return {
            "captions": [
                caption_record(
                    item.source,
                    (clip.clip_index, clip.start_s, clip.end_s),
                    stage,
                    texts[stage],
                    results[f"{stage}/{clip.clip_index}"],
                    item.fingerprints[stage],
                    self._by,
                )
                for clip in clips
                for stage in captions
            ],
            "answers": [
                answer_record(
                    item.source, span_s, clip_id, s, texts[s.stage], result, item.fingerprints[s.stage], self._by
                )
                for s, span_s, clip_id, result in answers
            ],
        }

    def _receipt(
        self, item: Item, decoded: Decoded | None, failure: Failure | None, seconds: dict[str, float]
    ) -> Receipt:
        return Receipt(
            item_key=item.key,
            video_id=item.source.video_id,
            kind=item.kind,
            first_clip=item.clips[1 if item.has_context else 0].clip_index,
            n_clips=0 if decoded is None else len(decoded.clips) - item.has_context,
            decoder=None if decoded is None else decoded.decoder,
            coverage=None if decoded is None else decoded.coverage,
            failure=failure,
            seconds=seconds,
        )


def embed_questions(setup: DescribeSetup) -> dict[str, FloatArray]:
    """Unit vectors (D,) of the recipe's questions by stage, for a caller that holds no encoder."""
    return _question_vectors(Encoder(resolve_model(setup.encoder.name, "encoder").path), setup.recipe.texts)


def _question_vectors(encoder: Encoder, texts: Mapping[str, str]) -> dict[str, FloatArray]:
    stages = [stage for stage in texts if stage.startswith("answer:")]
    if not stages:
        return {}
    return dict(zip(stages, encoder.texts([texts[stage] for stage in stages]).numpy(), strict=True))
