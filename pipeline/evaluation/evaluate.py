"""What pruning does to answers: the planted benchmark through the one engine, every method on the same items.

What a method spends depends on the clip: AdaTP's local debiasing, for one, may spend less than its schedule. So the
method of reference runs first, and every other is then given, item by item, the mean share of visual tokens a layer
that it spent: equal measured FLOPs in the paper's accounting, where cost is linear in tokens. AdaTP's own variants have
no ratio to set, and some methods cannot go so low; what each spent stands in its rows.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from av.error import FFmpegError

from adatp import (
    AdaTP,
    Engine,
    RandomTokens,
    Request,
    Result,
    Visual,
    segment_lengths,
    segment_relevance,
)
from adatp.methods import METHODS
from adatp.plan import Method
from pipeline.config import Thresholds
from pipeline.decoding.resize import Normalisation
from pipeline.errors import UsageError
from pipeline.evaluation.diagnostics import Diagnosis, diagnose
from pipeline.models.encoder import Encoder
from pipeline.models.pixels import normalise
from pipeline.planted.items import Item
from pipeline.planted.questions import Group

BATCH = 24  # items rendered, encoded and answered together

REFERENCE = "adatp"
"""Whose measured FLOPs the others are given, unless another is named."""

ABLATIONS: dict[str, AdaTP] = {
    "adatp-none": AdaTP(segments=False, global_debias=False, local_debias=False),
    "adatp-segments": AdaTP(global_debias=False, local_debias=False),
    "adatp-global": AdaTP(local_debias=False),
}
"""Table 2's rows before the last; the last is `adatp` itself."""

AUDITS = ("blind", "middle", "ends", "shuffled")
"""Shortcuts a sound benchmark leaves at chance: a black clip, one frame, the first and last, frames out of order."""


@dataclass(frozen=True)
class Seen:
    """An item ready to be asked: frames encoded once for all methods."""

    item: Item
    visual: Visual
    segments: tuple[int, ...]
    relevance: tuple[float, ...]
    true_segments: tuple[int, ...]
    random_segments: tuple[int, ...]
    """As many cuts as `segments` has, anywhere: does segmentation help, or merely cutting?"""
    diagnosis: Diagnosis


@dataclass(frozen=True)
class Answer:
    """One method's answer to one item; a row of the Parquet."""

    item_id: str
    type: str
    method: str
    p: float
    question: str
    truth: str
    given: str
    correct: bool
    time_bin: int
    cuts: str
    wording: int
    held_out_pair: bool
    n_segments: int
    llm_flops_ratio: float
    end_to_end_flops_ratio: float
    visual_tokens_per_layer: list[int] = field(default_factory=list)
    evidence_kept_per_layer: list[bool] = field(default_factory=list)
    diagnosis: Diagnosis | None = None
    evidence_shown: bool = True
    """Of an audit: whether the frames it saw show any of the evidence. Where they do, being right is no shortcut."""
    error: str = ""


@dataclass(frozen=True)
class Bench:
    """Model, encoder and how they are used; what `evaluate` runs on."""

    engine: Engine
    encoder: Encoder
    model_pixels: Normalisation
    encoder_pixels: Normalisation
    thresholds: Thresholds

    def see(self, item: Item) -> Seen:
        """Render and encode one item. Raises FFmpegError when its file does not decode."""
        frames = torch.from_numpy(item.frames())  # (32, 64, 64, 3)
        visual = self.engine.model.encode(normalise(frames, self.model_pixels), visionzip=True)
        features = self.encoder.images(normalise(frames, self.encoder_pixels))  # (32, D)
        segments = segment_lengths(features, self.thresholds.tau_s)
        similarity = features @ self.encoder.texts([item.question.text])[0]  # (32,)
        n, rng = len(features), np.random.default_rng(item.seed)
        cuts = np.sort(rng.choice(np.arange(1, n), len(segments) - 1, replace=False))
        relevance = segment_relevance(segments, similarity)
        scenes = tuple(scene.end - scene.start for scene in item.clip.scenes)
        evidence_frames = [frame for group in item.question.evidence for frame, _ in group]
        return Seen(
            item,
            visual,
            segments,
            relevance,
            scenes,
            tuple(int(length) for length in np.diff([0, *cuts, n])),
            diagnose(scenes, segments, relevance, evidence_frames),
        )

    def blank(self) -> Visual:
        """A clip that shows nothing."""
        frames = torch.zeros(32, 64, 64, 3, dtype=torch.uint8)
        return self.engine.model.encode(normalise(frames, self.model_pixels), visionzip=True)


def check_methods(names: Sequence[str]) -> None:
    """Raises UsageError when one is unknown."""
    known = [*METHODS, *ABLATIONS, "adatp-randomsegments", "adatp-truesegments", *AUDITS]
    for name in names:
        if name not in known:
            raise UsageError(f"--methods {name}: unknown; expected some of {', '.join(known)}")


def choice_request(
    bench: Bench, seen: Seen, name: str, p: float, method: Method | str, share: float | None = None
) -> Request:
    """The item's question, to be answered by one of its choices."""
    segments, relevance = _segments(seen, name)
    question = seen.item.question
    return Request(
        f"{seen.item.item_id}|{name}", seen.visual, question.text, segments=segments, relevance=relevance,
        method=with_options(bench, seen, name, method), p=p, share=share, choices=question.choices, trace=True,
    )  # fmt: skip


def caption_request(
    bench: Bench, seen: Seen, name: str, p: float, prompt: str, max_new_tokens: int, share: float | None = None
) -> Request:
    """A prompt that names nothing, to be answered in words."""
    return Request(
        f"{seen.item.item_id}|{name}", seen.visual, prompt, segments=_segments(seen, name)[0],
        method=with_options(bench, seen, name, name), p=p, share=share, max_new_tokens=max_new_tokens,
    )  # fmt: skip


def _segments(seen: Seen, name: str) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Lengths and relevances that the method of this name shall be given."""
    given = {"adatp-truesegments": seen.true_segments, "adatp-randomsegments": seen.random_segments}
    if name not in given:
        return seen.segments, seen.relevance
    per_frame = torch.repeat_interleave(torch.tensor(seen.relevance), torch.tensor(seen.segments))
    return given[name], segment_relevance(given[name], per_frame)  # the relevance of a frame goes with the frame


def with_options(bench: Bench, seen: Seen, name: str, method: Method | str) -> Method | str:
    """AdaTP with the encoder's own threshold, random tokens with the item's own seed, others as they are."""
    if name == "random":
        return RandomTokens(seed=seen.item.seed % (1 << 31))
    if not name.startswith("adatp"):
        return method
    base = ABLATIONS.get(name) or (METHODS[name] if name in METHODS else AdaTP())
    assert isinstance(base, AdaTP)
    return replace(base, tau_t=bench.thresholds.tau_t)


def _audit_frames(seen: Seen, name: str) -> list[int]:
    """Which frames an audit shows, in which order."""
    n = seen.visual.n_frames
    if name == "shuffled":
        return [int(i) for i in np.random.default_rng(seen.item.seed).permutation(n)]
    return {"blind": [], "middle": [n // 2], "ends": [0, n - 1]}[name]


def _audit_request(seen: Seen, name: str, blank: Visual) -> Request:
    visual = blank if name == "blind" else seen.visual[_audit_frames(seen, name)]
    question = seen.item.question
    return Request(
        f"{seen.item.item_id}|{name}", visual, question.text, method="none", choices=question.choices, trace=True
    )


def evidence_kept(evidence: tuple[Group, ...], kept: Sequence[int], tokens_per_frame: int) -> bool:
    """Whether every group of the evidence has a token among `kept` (frame * c + position)."""
    alive = set(kept)
    return all(any(frame * tokens_per_frame + cell in alive for frame, cell in group) for group in evidence)


def _answer(seen: Seen, name: str, p: float, result: Result) -> Answer:
    item, question, c = seen.item, seen.item.question, seen.visual.tokens_per_frame
    kept = result.kept or ()
    shown = set(_audit_frames(seen, name)) if name in AUDITS else set(range(seen.visual.n_frames))
    return Answer(
        item.item_id, question.type, name, p, question.text, question.answer, result.text,
        result.text == question.answer, item.time_bin, item.cuts_stratum, item.wording, item.held_out_pair,
        len(seen.segments), result.flops.paper, result.flops.end_to_end, list(result.visual_tokens_per_layer),
        [] if name in AUDITS else [evidence_kept(question.evidence, layer, c) for layer in kept], seen.diagnosis,
        any(frame in shown for group in question.evidence for frame, _ in group),
    )  # fmt: skip


def _lost(item: Item, name: str, p: float, error: str) -> Answer:
    """An item whose file does not decode is wrong for every method, and says why."""
    question = item.question
    return Answer(
        item.item_id, question.type, name, p, question.text, question.answer, "", False, item.time_bin,
        item.cuts_stratum, item.wording, item.held_out_pair, 0, float("nan"), float("nan"), error=error,
    )  # fmt: skip


def batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def evaluate(
    bench: Bench,
    items: Sequence[Item],
    methods: Sequence[str],
    ps: Sequence[float],
    reference: str = REFERENCE,
    variants: Mapping[str, Method] | None = None,
) -> Iterator[Answer]:
    """Every method on every item, at every p; `none` and the audits once (their p reads 0).

    Args:
        methods: names of `check_methods`, or of `variants`.
        reference: runs first; the others get, item by item, the share of tokens that it spent.
        variants: methods with options of their own, by the name their rows shall have; they run at p as they are.
    """
    by_name = dict(variants or {})
    check_methods([name for name in [reference, *methods] if name not in by_name])
    blank = bench.blank() if set(methods) & set(AUDITS) else None
    for batch in batches(items):
        seen: list[Seen] = []
        for item in batch:
            try:
                seen.append(bench.see(item))
            except FFmpegError as error:
                for name in methods:
                    for p in (0.0,) if name == "none" or name in AUDITS else ps:
                        yield _lost(item, name, p, str(error))
        if blank is not None:
            for name in (m for m in methods if m in AUDITS):
                requests = [_audit_request(one, name, blank) for one in seen]
                yield from _run(bench, seen, name, 0.0, requests)
        if "none" in methods:
            yield from _run(bench, seen, "none", 0.0, [choice_request(bench, one, "none", 1.0, "none") for one in seen])
        for p in ps:
            names = [m for m in methods if m != "none" and m not in AUDITS]
            yield from _pruned(bench, seen, names, p, reference, by_name)


def _run(bench: Bench, seen: list[Seen], name: str, p: float, requests: list[Request]) -> Iterator[Answer]:
    results = bench.engine.run(requests)
    for one, request in zip(seen, requests, strict=True):
        yield _answer(one, name, p, results[request.key])


def _pruned(
    bench: Bench, seen: list[Seen], names: list[str], p: float, reference: str, variants: Mapping[str, Method]
) -> Iterator[Answer]:
    def ask(one: Seen, name: str, share: float | None) -> Request:
        return choice_request(bench, one, name, p, variants.get(name, name), None if name in variants else share)

    for one, name, result in at_equal_cost(bench.engine, seen, names, reference, ask):
        yield _answer(one, name, p, result)


def at_equal_cost(
    engine: Engine,
    seen: Sequence[Seen],
    names: Sequence[str],
    reference: str,
    ask: Callable[[Seen, str, float | None], Request],
) -> Iterator[tuple[Seen, str, Result]]:
    """Results of every method on every item, the others at the share of tokens the reference spent on that item.

    `ask` makes the request of a method for an item at a share, None for the reference.
    """
    first = [ask(one, reference, None) for one in seen]
    results = engine.run(first)
    spent = [results[request.key] for request in first]
    shares = [sum(r.visual_tokens_per_layer) / (engine.model.n_layers * r.n_visual_tokens) for r in spent]
    for name in names:
        if name == reference:
            yield from ((one, name, result) for one, result in zip(seen, spent, strict=True))
            continue
        requests = [ask(one, name, share) for one, share in zip(seen, shares, strict=True)]
        results = engine.run(requests)
        yield from ((one, name, results[request.key]) for one, request in zip(seen, requests, strict=True))
