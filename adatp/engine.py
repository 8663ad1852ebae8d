"""The engine: requests in, results out by key. Prefill is packed, decoding batched; nothing of a request stays behind.

It knows neither files nor storage: pixels were encoded before (`VideoLLM.encode`), and one encoding serves any number
of requests.
"""

import math
import time
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial

import torch

from adatp.decode import Batch, Generated
from adatp.flops import FlopsRatios, ratios
from adatp.layout import Layout
from adatp.likelihood import ChoiceLogprob, choice_logprobs
from adatp.method import AdaTP
from adatp.methods import resolve
from adatp.model import VideoLLM
from adatp.plan import Clip, Method
from adatp.prefill import Prefilled, embed
from adatp.segments import segments_of_steps
from adatp.shared import prefill_pack
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


_ON_A_CPU = 32
_SHARING = 8
"""Prompts on one clip that are prefilled together at most."""
_ON_A_GPU = 256
_SPARE_SHARE = 0.1
"""Of a GPU's memory stays free while further clips are taken up: a step and a prefill need room of their own."""


class DoesNotFit(torch.OutOfMemoryError):
    """A clip that does not fit alone; it is no longer on the way, and others go on."""

    def __init__(self, key: str, error: torch.OutOfMemoryError) -> None:
        super().__init__(str(error))
        self.key = key


@dataclass(eq=False)
class _Running:
    """A request on its way."""

    request: Request
    clip: Clip
    prefill_ms: float = 0.0
    counts: tuple[int, ...] = ()
    kept: tuple[tuple[int, ...], ...] | None = None
    n_other: int = 0


class Engine:
    """Runs requests on one model, as they come: a finished clip's place is given to the next.

    `run` answers a list. `submit` hands requests in at any time, and `step` gives back what is finished. A result is
    the same whatever came before, beside or after it.

    Attributes:
        batch_size: clips decoded together at most. None: 32 on a CPU; on CUDA up to 256, as memory allows. Out of
            memory gives half of the clips up for later; a clip that does not fit alone raises
            `torch.OutOfMemoryError`.
        prefill_tokens: prompts are packed into one prefill up to this many tokens. None: 16,384 on CUDA; on a CPU each
            clip alone, where packing gains nothing and a clip's arithmetic then never depends on its neighbours.
    """

    def __init__(self, model: VideoLLM, batch_size: int | None = None, prefill_tokens: int | None = None) -> None:
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"expected batch_size of at least 1, got {batch_size}")
        self.model = model
        on_gpu = model.device.type == "cuda"
        self.batch_size = batch_size or (_ON_A_GPU if on_gpu else _ON_A_CPU)
        self._by_memory = batch_size is None and on_gpu
        self._prefill_tokens = prefill_tokens if prefill_tokens is not None else (16_384 if on_gpu else 0)
        self._waiting: deque[Request] = deque()
        self._batch = Batch(model)
        self._most = self.batch_size  # clips together; less after memory ran out

    def run(self, requests: Iterable[Request]) -> dict[str, Result]:
        """Answer every request; results are looked up by key, in the order asked."""
        asked = list(requests)
        self._check(asked)
        self._waiting.extend(asked)
        found: dict[str, Result] = {}
        try:
            while not self.is_idle:
                found |= self.step()
        finally:
            self._reset()
        return {request.key: found[request.key] for request in asked}

    def submit(self, requests: Iterable[Request]) -> None:
        """Hand further requests in, under keys that nothing on the way has. ValueError refuses what cannot run."""
        asked = list(requests)
        self._check(asked)
        self._waiting.extend(asked)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on the way."""
        return not (self._waiting or len(self._batch))

    @property
    def free_places(self) -> int:
        """Clips that could be taken up now beyond those handed in."""
        return max(0, self._most - len(self._batch) - len(self._waiting))

    def step(self) -> dict[str, Result]:
        """Prefill what there is a place for, then one token of every clip. Returns what is finished."""
        finished = self._take_up()
        if len(self._batch):
            try:
                finished |= self._results(self._batch.step())
            except torch.OutOfMemoryError as error:
                gone = self._batch.give_up_newest()
                requests = [running.request for running in gone if isinstance(running, _Running)]
                if not len(self._batch):
                    raise DoesNotFit(requests[0].key, error) from error
                self._waiting.extendleft(reversed(requests))  # again later: greedy tokens come out the same
                self._most = len(self._batch)
                self._free_cache()
        return finished

    def give_up(self, keys: Collection[str]) -> None:
        """Forget these requests."""
        self._waiting = deque(request for request in self._waiting if request.key not in keys)
        self._batch.give_up(lambda running: isinstance(running, _Running) and running.request.key in keys)

    def _reset(self) -> None:
        self._waiting.clear()
        self._batch = Batch(self.model)

    def _take_up(self) -> dict[str, Result]:
        finished: dict[str, Result] = {}
        while self._waiting and len(self._batch) < self._most and self._has_memory():
            pack = self._next_pack()
            try:
                finished |= self._prefill(pack)
            except torch.OutOfMemoryError as error:
                if len(pack) == 1 and not len(self._batch):
                    raise DoesNotFit(pack[0].key, error) from error
                self._waiting.extendleft(reversed(pack))
                self._most = max(1, len(self._batch) or len(pack) // 2)
                self._free_cache()
                break
        return finished

    def _next_pack(self) -> list[Request]:
        """The next requests, up to one prefill's tokens and the places there are."""
        pack: list[Request] = []
        tokens = 0
        while self._waiting and len(pack) < self._most - len(self._batch):
            pack.append(self._waiting.popleft())
            tokens += pack[-1].visual.tokens.shape[0] * pack[-1].visual.tokens.shape[1]
            shares = self._waiting and self._waiting[0].visual is pack[-1].visual  # and with it the first layers
            if tokens >= self._prefill_tokens and not (shares and len(pack) < _SHARING):
                break
        return pack

    def _has_memory(self) -> bool:
        if not (self._by_memory and len(self._batch)):
            return True
        free, total = torch.cuda.mem_get_info(self.model.device)
        unused = torch.cuda.memory_reserved(self.model.device) - torch.cuda.memory_allocated(self.model.device)
        return free + unused > _SPARE_SHARE * total

    def _free_cache(self) -> None:
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()

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

    @torch.inference_mode()
    def _prefill(self, pack: list[Request]) -> dict[str, Result]:
        """Prefill some requests together: those with choices are finished then, others join the batch."""
        begun, clips = time.perf_counter(), [clip_of(request, self.model) for request in pack]
        layouts = [layout_of(request, clip, self.model) for request, clip in zip(pack, clips, strict=True)]
        plans = [resolve(request.method).plan(clip) for request, clip in zip(pack, clips, strict=True)]
        done = prefill_pack(self.model, [embed(self.model, *each) for each in zip(layouts, clips, plans, strict=True)])
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()
        ms = (time.perf_counter() - begun) * 1000 / len(pack)
        running = [_running(request, clip, one, ms) for request, clip, one in zip(pack, clips, done, strict=True)]
        finished: dict[str, Result] = {}
        joining: list[tuple[object, Prefilled, int]] = []
        for each, one in zip(running, done, strict=True):
            if each.request.choices is None:
                joining.append((each, one, each.request.max_new_tokens))
            else:
                finished[each.request.key] = self._chosen(each, each.request.choices, one)
        if joining:
            finished |= self._results(self._batch.admit(joining))
        return finished

    def _results(self, ended: list[tuple[object, Generated]]) -> dict[str, Result]:
        found = {}
        for running, generated in ended:
            assert isinstance(running, _Running)
            text = self.model.prompt.tokenizer.decode(generated.token_ids, skip_special_tokens=True).strip()
            tokens = tuple(generated.token_ids)
            found[running.request.key] = self._result(
                running, text, tokens, generated.finish_reason, generated.decode_ms, None
            )
        return found

    def _chosen(self, running: _Running, choices: tuple[str, ...], clip: Prefilled) -> Result:
        begun = time.perf_counter()
        scores = choice_logprobs(self.model, clip, [self.model.prompt.answer_ids(text) for text in choices])
        best = max(range(len(scores)), key=lambda i: scores[i].mean)
        return self._result(running, choices[best], (), "stop", (time.perf_counter() - begun) * 1000, scores)

    def _result(
        self,
        running: _Running,
        text: str,
        token_ids: tuple[int, ...],
        finish_reason: str,
        decode_ms: float,
        scores: tuple[ChoiceLogprob, ...] | None,
    ) -> Result:
        model, clip = self.model, running.clip
        return Result(
            text=text,
            token_ids=token_ids,
            finish_reason=finish_reason,
            n_visual_tokens=clip.n_visual,
            n_text_tokens=running.n_other,
            visual_tokens_per_layer=running.counts,
            flops=ratios(
                model.llm_shape,
                partial(model.family.vision_flops, grid=clip.visual.grid),
                running.counts,
                running.n_other,
                clip.n_visual,
                clip.n_frames,
                _steps_encoded(running.request, clip),
                running.request.encoder_flops,
            ),
            prefill_ms=running.prefill_ms,
            decode_ms=decode_ms,
            choice_logprobs=scores,
            kept=running.kept,
        )


def _running(request: Request, clip: Clip, prefilled: Prefilled, prefill_ms: float) -> _Running:
    counts = tuple(len(origin) for origin in prefilled.origins)
    kept = tuple(tuple(origin.tolist()) for origin in prefilled.origins) if request.trace else None
    return _Running(request, clip, prefill_ms, counts, kept, prefilled.n_other)


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
