"""Models that answer a benchmark's questions about a video: its frames are encoded once for all of them.

Used by `jobs.evaluate` and by the lmms-eval plug-in alike, so that both give the same answers.
Legend: n frames, S segments.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from safetensors import SafetensorError
from torch import Tensor

import adatp
from adatp.methods import METHODS
from pipeline.config import Thresholds
from pipeline.decoding.resize import Normalisation
from pipeline.errors import UsageError
from pipeline.models.checkpoints import fetch, resolve_model, resolve_thresholds
from pipeline.models.encoder import Encoder
from pipeline.models.memory import halving
from pipeline.models.pixels import normalise
from pipeline.public_benchmarks.settings import Setting
from pipeline.types import ClipFrames, Frames, ResizeRecipe

How = Literal["generate", "letters", "options"]
"""How the model answers: greedy text after the harness's prompt; the likeliest option letter after that prompt; or,
asked the bare question, the likeliest option text."""

PAPER_ENCODER = "google/siglip-so400m-patch14-384"
"""The paper's, whatever an index is made with: numbers are to stand beside the paper's."""

HOWS: tuple[How, ...] = ("generate", "letters", "options")


@dataclass(frozen=True)
class ModelChoice:
    """Which models, and where they run. Plain text, so that it crosses to a worker."""

    model: str
    encoder: str | None = None  # None: the paper's, or builtin's own
    device: str = "auto"
    thresholds: Thresholds | None = None  # None: the encoder's own

    @property
    def encoder_name(self) -> str:
        if self.encoder is not None:
            return self.encoder
        return "builtin" if self.model == "builtin" else PAPER_ENCODER


@dataclass(frozen=True)
class Ask:
    """One question as the model gets it."""

    key: str
    prompt: str
    stem: str
    choices: tuple[str, ...] | None
    max_new_tokens: int


@dataclass(frozen=True, eq=False)
class Seen:
    """A video whose frames are encoded."""

    visual: adatp.Visual
    features: Tensor  # (n, D), unit
    vision_ms: float


class Asker:
    """Video LLM and encoder, loaded once."""

    def __init__(self, choice: ModelChoice) -> None:
        device = ("cuda" if torch.cuda.is_available() else "cpu") if choice.device == "auto" else choice.device
        dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
        model, encoder = resolve_model(choice.model, "model"), resolve_model(choice.encoder_name, "encoder")
        fetch(model)
        fetch(encoder)
        try:
            self._model = adatp.load(model.path, device=device, dtype=dtype)
            self._encoder = Encoder(encoder.path, device, dtype)
        except (adatp.CheckpointError, SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
            names = f"{choice.model} or {choice.encoder_name}"
            raise UsageError(f"the weights of {names} do not load: {error}") from error
        self._engine = adatp.Engine(self._model)
        self._thresholds = choice.thresholds or resolve_thresholds(encoder)
        self._model_pixels, self._encoder_pixels = model.normalisation, encoder.normalisation
        self.model_resize, self.encoder_resize = model.identity.resize, encoder.identity.resize
        self.device, self.dtype = device, dtype

    @property
    def resizes(self) -> tuple[ResizeRecipe, ResizeRecipe | None]:
        """What the decoder makes of a frame: for the model, and for the encoder where that wants other pixels."""
        same = self.encoder_resize == self.model_resize
        return self.model_resize, None if same else self.encoder_resize

    def check(self, settings: Sequence[Setting]) -> None:
        """Raises UsageError when the model cannot run one of them."""
        if not self._model.family.can_rank and any(isinstance(s.method, adatp.VisionZip) for s in settings):
            raise UsageError(f"visionzip ranks by a SigLIP tower's attention, which {self._model.family.name} has not")

    def see(self, clip: ClipFrames, settings: Sequence[Setting]) -> Seen:
        """Encode a video's frames, once for all questions and `settings`."""
        began = time.perf_counter()
        pixels, n = _pixels(clip.frames, self._model_pixels), len(clip.pts_s)
        visionzip = any(isinstance(setting.method, adatp.VisionZip) for setting in settings)

        def encode(first: int, last: int) -> adatp.Visual:
            return self._model.encode(pixels[first:last], clip.pts_s[first:last], visionzip=visionzip)

        visual = halving(encode, adatp.Visual.cat, 0, n)
        frames = clip.frames if clip.encoder_frames is None else clip.encoder_frames
        features = self._encoder.images(_pixels(frames, self._encoder_pixels))  # (n, D)
        return Seen(visual, features, (time.perf_counter() - began) * 1000)

    def refusal(self, ask: Ask) -> str:
        """Why the question's text cannot be shown to the model; "" when it can."""
        try:
            for words in (ask.prompt, *(ask.choices or ())):
                self._model.prompt.plain_ids(words)
            for words in ask.choices or ():
                self._model.prompt.answer_ids(words)
        except ValueError as error:
            return " ".join(str(error).split())[:200]
        return ""

    def answer(
        self, seen: Seen, asks: Sequence[Ask], settings: Sequence[Setting]
    ) -> dict[tuple[str, Setting], adatp.Result]:
        """Every setting's result of every question. What others are measured by runs first."""
        relevances = dict(zip([ask.key for ask in asks], self._similarities(seen, asks), strict=True))
        shares: dict[tuple[str, float], float] = {}
        found: dict[tuple[str, Setting], adatp.Result] = {}
        names = {(s.measured_like, s.p) for s in settings if s.measured_like}
        first = [Setting(name, p, METHODS[name]) for name, p in sorted(names)]
        for wave in (first, [s for s in settings if s not in first]):
            requests = {
                f"{place}": (ask, setting, self._request(f"{place}", seen, ask, setting, relevances, shares))
                for place, (ask, setting) in enumerate((ask, setting) for setting in wave for ask in asks)
            }
            results = self._engine.run([request for _, _, request in requests.values()])
            for key, (ask, setting, _) in requests.items():
                result = results[key]
                found[ask.key, setting] = result
                if setting in first:
                    shares[ask.key, setting.p] = _share_kept(result)
        return {(ask.key, setting): found[ask.key, setting] for setting in settings for ask in asks}

    def segments(self, seen: Seen, setting: Setting) -> tuple[int, ...]:
        tau_s = self._thresholds.tau_s if setting.tau_s is None else setting.tau_s
        return tuple(adatp.segment_lengths(seen.features, tau_s))

    def _similarities(self, seen: Seen, asks: Sequence[Ask]) -> Iterator[Tensor]:
        """Each question's cosine with every frame, (n,)."""
        if asks:
            yield from self._encoder.texts([ask.stem for ask in asks]) @ seen.features.T

    def _request(
        self,
        key: str,
        seen: Seen,
        ask: Ask,
        setting: Setting,
        similarities: Mapping[str, Tensor],
        shares: Mapping[tuple[str, float], float],
    ) -> adatp.Request:
        segments = self.segments(seen, setting)
        flops = self._encoder.flops_per_frame * seen.visual.n_frames if setting.uses_segments else 0.0
        return adatp.Request(
            key=key,
            visual=seen.visual,
            prompt=ask.prompt,
            segments=segments,
            relevance=adatp.segment_relevance(segments, similarities[ask.key]),
            method=setting.method_for(self._thresholds, ask.key),
            p=setting.p or 1.0,
            share=shares[ask.key, setting.p] if setting.measured_like else None,
            max_new_tokens=ask.max_new_tokens,
            choices=ask.choices,
            encoder_flops=flops,
        )


def _pixels(frames: Frames, how: Normalisation) -> Tensor:
    return normalise(torch.from_numpy(frames.copy()), how)


def _share_kept(result: adatp.Result) -> float:
    """Mean over layers of the share of the visual tokens that entered."""
    counts = result.visual_tokens_per_layer
    return sum(counts) / (len(counts) * result.n_visual_tokens)
