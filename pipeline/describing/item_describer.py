"""Decoded item -> rows of the tables: embed, describe, and lay the rows out.

Legend: n frames of a clip, S segments, D embedding width, q questions.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

import adatp
from pipeline.config import DescribeSetup
from pipeline.describing.choices import split_choices
from pipeline.describing.embed import EmbeddedClip, embed_clips
from pipeline.describing.encoded import EncodedFrames
from pipeline.describing.rows import Provenance, Record, answer_record, build_table, caption_record, clip_tables
from pipeline.describing.turns import Turns
from pipeline.describing.video_llm import Describer, Prompting, show_whole_video
from pipeline.errors import ChangedWhileRead, OutOfMemory
from pipeline.index.staging import Rows
from pipeline.items.evidence import FloatArray, Questions, choose_shown, segment_relevance
from pipeline.items.item import Item, Shown
from pipeline.models.checkpoints import open_model
from pipeline.models.devices import choose_device, refuse_too_large
from pipeline.models.encoder import Encoder
from pipeline.models.pixels import DeviceFrames
from pipeline.types import EMBED, ClipFrames, Decoded, Target, clip_id_of, segment_id_of


@dataclass(frozen=True)
class Ask:
    """One request to the engine, the table its row goes to, and how the result becomes that row."""

    table: str
    request: adatp.Request
    record: Callable[[adatp.Result], Record]


class ItemDescriber:
    """Makes an item's rows. Holds the encoder and, when anything is asked of it, the Video LLM."""

    def __init__(self, setup: DescribeSetup) -> None:
        self._setup = setup
        device, dtype = choose_device(setup.device)
        encoder = open_model(setup.encoder, "encoder")
        self._encoder = Encoder(encoder.path, device, dtype)
        self._normalisation = encoder.normalisation
        self.questions = _embed_questions(self._encoder, setup.recipe.texts)
        self._describer: Describer | None = None
        if setup.recipe.texts:
            model = open_model(setup.model, "model")
            refuse_too_large(model, device, dtype)
            self._describer = Describer(
                adatp.load(model.path, device=device, dtype=dtype),
                model.normalisation,
                setup.thresholds,
                self._encoder.flops_per_frame,
                Prompting(setup.prune, setup.p, setup.max_new_tokens, setup.recipe.texts),
                setup.batch_size,
            )
        self._turns = Turns(None if self._describer is None else self._describer.engine)
        self._by = Provenance(
            setup.run_id,
            setup.encoder,
            setup.model,
            setup.prune,
            setup.p,
            self._encoder.dim,
            setup.abstain_below,
            self.questions.cut,
        )

    def rows(self, item: Item, decoded: Decoded, seconds: dict[str, float]) -> Rows:
        """Tables of one item; what each stage took is added to `seconds`. Raises VideoError; OutOfMemory is one.

        Several threads may call it: their items take turns at the models and share batches.
        """
        try:
            (embedded, asks), results = self._turns.do(partial(self._prepare, item, decoded, seconds))
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(str(error).splitlines()[0]) from error
        model_ms = sum(result.prefill_ms + result.decode_ms for result in results.values())
        seconds["describe"] = seconds.get("describe", 0.0) + model_ms / 1000
        rows: Rows = {}
        if embedded:
            rows = clip_tables(item.source, embedded, item.fingerprints[EMBED], self._by, self._setup.keep_frames)
        records: dict[str, list[Record]] = {}
        for ask in asks:
            records.setdefault(ask.table, []).append(ask.record(results[ask.request.key]))
        return rows | {name: build_table(name, self._by.dim, found) for name, found in records.items()}

    def _prepare(
        self, item: Item, decoded: Decoded, seconds: dict[str, float]
    ) -> tuple[tuple[list[EmbeddedClip], list[Ask]], list[adatp.Request]]:
        """The item's new clips embedded, and what the Video LLM is asked of it."""
        started, clips, embedded = time.perf_counter(), list(decoded.clips), list[EmbeddedClip]()
        pixels = [DeviceFrames(clip.frames, self._encoder.device) for clip in clips]
        if item.kind == "index":
            tau_s = self._setup.thresholds.tau_s
            embedded = embed_clips(self._encoder, self._normalisation, tau_s, clips, pixels, item.has_context)
            seconds["embed"] = seconds.get("embed", 0.0) + time.perf_counter() - started
            started = time.perf_counter()
            asks = self._ask_new(item, embedded, pixels[int(item.has_context) :])
        elif item.kind == "again":
            asks = self._ask_stored(item, clips, pixels)
        else:
            asks = self._ask_video(item, clips, pixels)
        seconds["describe"] = seconds.get("describe", 0.0) + time.perf_counter() - started
        return (embedded, asks), [ask.request for ask in asks]

    def _ask_new(self, item: Item, embedded: Sequence[EmbeddedClip], pixels: Sequence[DeviceFrames]) -> list[Ask]:
        """Captions of every clip, and questions on the whole video where this item is all of it."""
        asks: list[Ask] = []
        if self._describer is None or not embedded:
            return asks
        encoded = EncodedFrames(self._describer, [clip.clip for clip in embedded], pixels)
        for at, clip in enumerate(embedded):
            asks += self._captions(item, clip.clip, encoded, at, clip.lengths)
            asks += self._of_clip(item, clip.clip, encoded, at, clip.lengths, clip.means)
        questions = [t for t in item.targets if t.asks_video] if item.n_items == 1 else []
        if questions:
            span_s = (embedded[0].clip.start_s, embedded[-1].clip.end_s)
            for target in questions:
                shown = show_whole_video(target, self.questions.vectors[target], item.source.video_id, embedded)
                asks.append(self._answer(item, shown, encoded, 0, None, span_s))
        return asks

    def _ask_stored(self, item: Item, clips: Sequence[ClipFrames], pixels: Sequence[DeviceFrames]) -> list[Ask]:
        """Clips that are in the index already: their segments stand; each may be captioned and asked questions."""
        asks: list[Ask] = []
        if self._describer is None:
            return asks
        encoded = EncodedFrames(self._describer, clips, pixels)
        for at, (clip, stored) in enumerate(zip(clips, item.stored, strict=True)):
            means = np.asarray(stored.vectors, dtype=np.float32)
            asks += self._captions(item, clip, encoded, at, stored.lengths)
            asks += self._of_clip(item, clip, encoded, at, stored.lengths, means)
        return asks

    def _of_clip(
        self,
        item: Item,
        clip: ClipFrames,
        encoded: EncodedFrames,
        at: int,
        lengths: Sequence[int],
        means: FloatArray,
    ) -> Iterator[Ask]:
        """Questions on the clip `at` of `encoded`; `lengths` and `means` (S, D) are those of its segments."""
        edges_s = [clip.start_s, *(clip.pts_s[i] for i in np.cumsum(lengths)[:-1]), clip.end_s]
        clip_id = clip_id_of(item.source.video_id, clip.clip_index)
        segments = [(segment_id_of(clip_id, s), edges_s[s], edges_s[s + 1]) for s in range(len(lengths))]
        for target in (t for t in item.targets if t.scope == "clip"):
            shown = choose_shown(target, lengths, segment_relevance(means, self.questions.vectors[target]), segments)
            first = encoded.of_clip(at).start
            yield self._answer(item, shown, encoded, first, clip_id, (clip.start_s, clip.end_s))

    def _ask_video(self, item: Item, clips: Sequence[ClipFrames], pixels: Sequence[DeviceFrames]) -> list[Ask]:
        """Questions on a whole video, whose frames were chosen before they were decoded."""
        (clip,) = clips
        wanted = len(item.clips[0].targets_s)
        if len(clip.pts_s) != wanted:
            raise ChangedWhileRead(f"{wanted} frames stand in the index, but {len(clip.pts_s)} of them decode now")
        if self._describer is None:
            return []
        encoded, span_s = EncodedFrames(self._describer, clips, pixels), (clip.start_s, clip.end_s)
        return [self._answer(item, shown, encoded, 0, None, span_s) for shown in item.shown]

    def _captions(
        self, item: Item, clip: ClipFrames, encoded: EncodedFrames, at: int, lengths: Sequence[int]
    ) -> Iterator[Ask]:
        """One ask for each caption prompt. A caption prompt names nothing: global debiasing is off (no relevance)."""
        for target in (t for t in item.targets if t.kind == "caption"):
            span = (clip.clip_index, clip.start_s, clip.end_s)
            text, fingerprint = self._setup.recipe.texts[target], item.fingerprints[target]
            yield Ask(
                "captions",
                self._request(
                    f"{item.key}/{target}/{clip.clip_index}",
                    encoded.show(encoded.of_clip(at), lengths),
                    lengths,
                    None,
                    target,
                ),
                partial(caption_record, item.source, span, target, text, fingerprint, self._by),
            )

    def _answer(
        self,
        item: Item,
        shown: Shown,
        encoded: EncodedFrames,
        first: int,
        clip_id: str | None,
        span_s: tuple[float, float],
    ) -> Ask:
        """A question on the frames it is shown; `shown.places` count from the place `first` of `encoded` on."""
        text, fingerprint = self._setup.recipe.texts[shown.target], item.fingerprints[shown.target]
        key = f"{item.key}/{shown.target}/{clip_id or item.source.video_id}"
        return Ask(
            "answers",
            self._request(
                key,
                encoded.show([first + place for place in shown.places], shown.lengths),
                shown.lengths,
                shown.relevance,
                shown.target,
            ),
            partial(answer_record, item.source, span_s, clip_id, shown, text, fingerprint, self._by),
        )

    def _request(
        self, key: str, visual: adatp.Visual, lengths: Sequence[int], relevance: Sequence[float] | None, target: Target
    ) -> adatp.Request:
        if self._describer is None:
            raise RuntimeError("nothing can be asked: the run has no prompts, so no Video LLM was loaded")
        return self._describer.request(key, visual, lengths, relevance, target)


def embed_questions(setup: DescribeSetup) -> Questions:
    """The recipe's questions, for a caller that holds no encoder."""
    return _embed_questions(Encoder(open_model(setup.encoder, "encoder").path), setup.recipe.texts)


def _embed_questions(encoder: Encoder, texts: Mapping[Target, str]) -> Questions:
    asked = {target: split_choices(text)[0] for target, text in texts.items() if target.kind == "answer"}
    if not asked:
        return Questions({}, frozenset())
    vectors = encoder.texts(list(asked.values())).numpy()
    cut = frozenset(target for target, text in asked.items() if encoder.is_cut(text))
    return Questions(dict(zip(asked, vectors, strict=True)), cut)
