"""The engine: requests in, results out by key. Prefill is packed, decoding batched; nothing of a request stays behind.

It knows neither files nor storage: pixels were encoded before (`VideoLLM.encode`), and one encoding serves any number
of requests.
"""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch

from adatp.decode import Generated, greedy
from adatp.flops import FlopsRatios, ratios
from adatp.layout import Layout
from adatp.likelihood import ChoiceLogprob, choice_logprob
from adatp.method import AdaTP
from adatp.methods import resolve
from adatp.model import VideoLLM
from adatp.plan import Clip, Method
from adatp.prefill import Prefilled, Sequence, embed, prefill
from adatp.segments import segments_of_steps
from adatp.visionzip import VisionZip
from adatp.visual import Visual


@dataclass(frozen=True, eq=False)
class Request:
    """One prompt on one clip.

    Attributes:
        key: names the result.
        visual: the clip's n encoded frames. With `adatp+repframes` it may hold the representative frames alone
            (`representative_frames(segments)`), which is what saves the tower's work.
        segments: lengths in frames that sum to n; what AdaTP prunes inside. See `segment_lengths`.
        relevance: one score per segment (Eq. 3, averaged). None: global debiasing is off.
        method: a name of `METHODS`, or a method with options, such as `AdaTP(tau_t=0.1)`.
        p: the paper's p, above 0. Methods other than AdaTP keep what costs as much as AdaTP's schedule at this p.
        share: mean over layers of the share of visual tokens that such methods keep instead, in (0, 1]: equal FLOPs
            with any other run. AdaTP itself, and a method whose options say what to keep, do not heed it.
        choices: answers to score instead of generating; `Result.choice_logprobs` has one entry for each.
        encoder_flops: what segmentation cost on this clip, for the end-to-end ratio.
        trace: record which visual tokens entered each layer.
    """

    key: str
    visual: Visual
    prompt: str
    segments: tuple[int, ...] | None = None
    relevance: tuple[float, ...] | None = None
    method: str | Method = "adatp"
    p: float = 1.0
    share: float | None = None
    max_new_tokens: int = 64
    choices: tuple[str, ...] | None = None
    encoder_flops: float = 0.0
    trace: bool = False

    def __post_init__(self) -> None:
        method = resolve(self.method)
        if not (math.isfinite(self.p) and self.p > 0):
            raise ValueError(f"{self.key}: expected p above 0, got {self.p}")
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"{self.key}: expected share in (0, 1], got {self.share}")
        if self.max_new_tokens < 1:
            raise ValueError(f"{self.key}: expected max_new_tokens of at least 1, got {self.max_new_tokens}")
        if self.choices is not None and not self.choices:
            raise ValueError(f"{self.key}: expected at least one choice, got none")
        if self.segments is not None:
            self._check_segments(method)
        elif isinstance(method, AdaTP) and method.segments:
            raise ValueError(f"{self.key}: adatp needs segments, lengths that sum to the clip's frames; got None")
        if self.relevance is not None and len(self.relevance) != len(self.segments or ()):
            raise ValueError(
                f"{self.key}: expected one relevance for each of {len(self.segments or ())} segments, "
                f"got {len(self.relevance)}"
            )

    def _check_segments(self, method: Method) -> None:
        segments = self.segments or ()
        if any(length < 1 for length in segments):
            raise ValueError(f"{self.key}: expected segment lengths of at least 1 frame, got {segments}")
        held = self.visual.n_frames
        allowed = {sum(segments)}
        if isinstance(method, AdaTP) and self.visual.members is None:
            allowed.add(len(method.frames_encoded(segments)))
        if held not in allowed:
            raise ValueError(
                f"{self.key}: expected segments that sum to the clip's {held} frames, got {segments} = {sum(segments)}"
            )


@dataclass(frozen=True)
class Result:
    """What became of a request.

    Attributes:
        text: the generated text, or the likeliest of the choices (by mean log-probability).
        token_ids: generated tokens, without the stop token; empty for choices.
        finish_reason: "stop" or "length"; choices count as "stop".
        n_visual_tokens: V0 of the unpruned prompt. n_text_tokens: T, every other position.
        visual_tokens_per_layer: visual tokens that entered each decoder layer.
        flops: the three ratios.
        prefill_ms, decode_ms: this clip's share of its batch's wall time.
        kept: with `trace`, frame * c + position of the visual tokens that entered each layer.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    n_visual_tokens: int
    n_text_tokens: int
    visual_tokens_per_layer: tuple[int, ...]
    flops: FlopsRatios
    prefill_ms: float
    decode_ms: float
    choice_logprobs: tuple[ChoiceLogprob, ...] | None = None
    kept: tuple[tuple[int, ...], ...] | None = None


@dataclass(frozen=True, eq=False)
class Engine:
    """Runs requests on one model.

    Attributes:
        batch_size: clips decoded together. A CUDA out-of-memory halves the batch until it fits; a single clip that does
            not fit raises `torch.OutOfMemoryError`.
        prefill_tokens: prompts are packed into one prefill up to this many tokens. None: 16,384 on CUDA; on a CPU each
            clip alone, where packing gains nothing and a clip's arithmetic then never depends on its neighbours.
    """

    model: VideoLLM
    batch_size: int = 8
    prefill_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"expected batch_size of at least 1, got {self.batch_size}")

    def run(self, requests: Iterable[Request]) -> dict[str, Result]:
        """Answer every request; results are looked up by key."""
        waiting = list(requests)
        self._check(waiting)
        results: dict[str, Result] = {}
        for begin in range(0, len(waiting), self.batch_size):
            results |= self._run_or_split(waiting[begin : begin + self.batch_size])
        return results

    def _check(self, requests: list[Request]) -> None:
        """Refuse what cannot run before any work is done."""
        keys = [request.key for request in requests]
        if len(set(keys)) < len(keys):
            raise ValueError(
                f"expected distinct keys, got {sorted(k for k in set(keys) if keys.count(k) > 1)} repeated"
            )
        for request in requests:
            self._check_visual(request)
            for text in (request.prompt, *(request.choices or ())):
                self.model.prompt.plain_ids(text)

    def _check_visual(self, request: Request) -> None:
        family, visual = self.model.family, request.visual
        c, d = family.tokens_per_frame or visual.tokens_per_frame, self.model.hidden_size
        if (shape := visual.tokens.shape)[1:] != (c, d):
            raise ValueError(f"{request.key}: expected visual tokens (n, {c}, {d}) of this model, got {tuple(shape)}")
        layers = 0 if visual.deepstack is None else visual.deepstack.shape[2]
        if layers != family.deepstack_layers:
            raise ValueError(f"{request.key}: expected {family.deepstack_layers} deepstack layers, got {layers}")
        if isinstance(resolve(request.method), VisionZip) and visual.ranking is None:
            raise ValueError(
                f"{request.key}: visionzip needs clips encoded with visionzip=True"
                if family.can_rank
                else f"{request.key}: visionzip ranks by a SigLIP tower's attention, which {family.name} does not have"
            )

    def _run_or_split(self, batch: list[Request]) -> dict[str, Result]:
        try:
            return self._run_batch(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(batch) // 2
        return self._run_or_split(batch[:half]) | self._run_or_split(batch[half:])

    @torch.inference_mode()
    def _run_batch(self, batch: list[Request]) -> dict[str, Result]:
        clips = [clip_of(request, self.model) for request in batch]
        prefilled, prefill_ms = self._prefill(batch, clips)
        generating = [i for i, request in enumerate(batch) if request.choices is None]
        chosen = {
            i: self._score_choices(request.choices, prefilled[i])
            for i, request in enumerate(batch)
            if request.choices is not None
        }
        generated: dict[int, Generated] = {}
        if generating:
            limits = [batch[i].max_new_tokens for i in generating]
            outputs = greedy(self.model, [prefilled[i] for i in generating], limits)
            generated = dict(zip(generating, outputs, strict=True))
        return {
            request.key: self._result(request, clips[i], prefilled[i], prefill_ms[i], generated.get(i), chosen.get(i))
            for i, request in enumerate(batch)
        }

    def _prefill(self, batch: list[Request], clips: list[Clip]) -> tuple[list[Prefilled], list[float]]:
        """Prefill the batch in packs; every clip's share of the wall time in ms."""
        done: list[Prefilled] = []
        shares: list[float] = []
        pack: list[Sequence] = []
        limit = self.prefill_tokens
        if limit is None:
            limit = 16_384 if self.model.device.type == "cuda" else 0
        for i, (request, clip) in enumerate(zip(batch, clips, strict=True)):
            begun = time.perf_counter()
            layout = layout_of(request, clip, self.model)
            pack.append(embed(self.model, layout, clip, resolve(request.method).plan(clip)))
            if i + 1 < len(batch) and sum(map(len, pack)) < limit:
                continue
            done += prefill(self.model, pack)
            if self.model.device.type == "cuda":
                torch.cuda.synchronize()
            shares += [(time.perf_counter() - begun) * 1000 / len(pack)] * len(pack)
            pack = []
        return done, shares

    def _score_choices(self, choices: tuple[str, ...], clip: Prefilled) -> tuple[tuple[ChoiceLogprob, ...], float]:
        begun = time.perf_counter()
        scores = tuple(choice_logprob(self.model, clip, self.model.prompt.answer_ids(text)) for text in choices)
        return scores, (time.perf_counter() - begun) * 1000

    def _result(
        self,
        request: Request,
        clip: Clip,
        prefilled: Prefilled,
        prefill_ms: float,
        generated: Generated | None,
        chosen: tuple[tuple[ChoiceLogprob, ...], float] | None,
    ) -> Result:
        model = self.model
        if chosen is not None:
            scores, decode_ms = chosen
            best = max(range(len(scores)), key=lambda i: scores[i].mean)
            text, tokens, reason = (request.choices or ())[best], [], "stop"
        else:
            assert generated is not None
            scores, decode_ms, tokens, reason = None, generated.decode_ms, generated.token_ids, generated.finish_reason
            text = model.prompt.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        counts = tuple(len(origin) for origin in prefilled.origins)
        return Result(
            text=text,
            token_ids=tuple(tokens),
            finish_reason=reason,
            n_visual_tokens=clip.n_visual,
            n_text_tokens=prefilled.n_other,
            visual_tokens_per_layer=counts,
            flops=ratios(
                model.llm_shape,
                partial(model.family.vision_flops, grid=clip.visual.grid),
                counts,
                prefilled.n_other,
                clip.n_visual,
                clip.n_frames,
                _steps_encoded(request, clip),
                request.encoder_flops,
            ),
            prefill_ms=prefill_ms,
            decode_ms=decode_ms,
            choice_logprobs=scores,
            kept=tuple(tuple(origin.tolist()) for origin in prefilled.origins) if request.trace else None,
        )


def clip_of(request: Request, model: VideoLLM) -> Clip:
    """What the request's method sees; representative frames are picked out here where all frames were given.

    A prompt without relevances is one that names nothing: its words are not shown.
    """
    visual, segments, relevance, method = request.visual, request.segments, request.relevance, resolve(request.method)
    if segments is not None and visual.members is not None:
        segments, relevance = segments_of_steps(visual.members, segments, relevance)
    n_frames = visual.n_steps if segments is None else sum(segments)
    frames = tuple(range(n_frames))
    if isinstance(method, AdaTP) and segments is not None:
        frames = method.frames_encoded(segments)
        if visual.n_steps > len(frames):
            visual = visual.steps(frames)
    words = None
    if request.relevance is not None:
        ids = torch.tensor(model.prompt.plain_ids(request.prompt), device=model.device)
        words = model.decoder.embed_tokens(ids)
    return Clip(visual, n_frames, frames, segments, relevance, model.n_layers, request.p, words, request.share)


def _steps_encoded(request: Request, clip: Clip) -> int:
    """Steps the tower saw: where the prompt tells their times all of them, else those the method needs."""
    return len(clip.frames) if request.visual.times_s is None else request.visual.n_steps


def layout_of(request: Request, clip: Clip, model: VideoLLM) -> Layout:
    """The request's unpruned prompt, row by row."""
    times_s = request.visual.times_s if request.visual.n_steps == clip.n_frames else None
    return model.lay_out(request.prompt, clip.n_frames, clip.visual, times_s)
