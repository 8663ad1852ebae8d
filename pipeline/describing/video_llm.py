"""Describe an item: captions of its clips and answers to questions, through the one engine.

Vision is encoded once for a clip, whatever the number of prompts; a question on a whole video reuses it.
Legend: n frames of a clip, S segments, D embedding width, q questions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

import adatp
from pipeline.config import Thresholds
from pipeline.decoding.resize import Normalisation
from pipeline.describing.choices import split_choices
from pipeline.describing.embed import EmbeddedClip
from pipeline.errors import NotFinite
from pipeline.items.evidence import FloatArray, choose_shown, segment_relevance
from pipeline.items.item import Shown
from pipeline.models.memory import halving
from pipeline.models.pixels import DeviceFrames
from pipeline.types import ClipFrames, Target, clip_id_of, segment_id_of


@dataclass(frozen=True)
class Prompting:
    """How the model is asked: pruning, length, and what it is asked."""

    prune: str
    p: float
    max_new_tokens: int
    texts: dict[Target, str]


class Describer:
    """The Video LLM, loaded once, and what turns frames and texts into requests."""

    def __init__(
        self,
        model: adatp.VideoLLM,
        normalisation: Normalisation,
        thresholds: Thresholds,
        encoder_flops_per_frame: float,
        prompting: Prompting,
        batch_size: int | None = None,
    ) -> None:
        self._model = model
        self.engine = adatp.Engine(model, batch_size)
        self._normalisation = normalisation
        self._encoder_flops = encoder_flops_per_frame
        self._prompting = prompting
        self._method: str | adatp.AdaTP = prompting.prune
        if isinstance(method := adatp.METHODS[prompting.prune], adatp.AdaTP):
            self._method = replace(method, tau_t=thresholds.tau_t)

    @property
    def device(self) -> torch.device:
        """Where frames should lie to be encoded."""
        return self._model.device

    def representatives(self, lengths: Sequence[int]) -> tuple[int, ...] | None:
        """Frames that the method needs of segments of `lengths`; None where it needs them all."""
        if not isinstance(self._method, adatp.AdaTP) or self._method.representative_frames is None:
            return None
        return self._method.frames_encoded(tuple(lengths))

    def encode(self, clip: ClipFrames, pixels: DeviceFrames, frames: Sequence[int] | None = None) -> adatp.Visual:
        """The clip's frames, or some of them -> visual tokens (n, c, d). Raises NotFinite."""
        at = range(len(clip.pts_s)) if frames is None else frames
        how = self._normalisation
        normalised = pixels.normalised(how) if frames is None else pixels.some(frames, how)  # (n, 3, H, W)
        visionzip = self._prompting.prune == "visionzip"

        def encode(first: int, last: int) -> adatp.Visual:
            times_s = [clip.pts_s[i] for i in at[first:last]]
            return self._model.encode(normalised[first:last], times_s, visionzip=visionzip)

        visual = halving(encode, adatp.Visual.cat, 0, len(at))
        if not bool(torch.isfinite(visual.tokens).all()):
            raise NotFinite(f"the Video LLM's vision tower gave no numbers for a frame of clip {clip.clip_index}")
        return visual

    def request(
        self, key: str, visual: adatp.Visual, lengths: Sequence[int], relevance: Sequence[float] | None, target: Target
    ) -> adatp.Request:
        """The prompt of `target` on n frames in segments of `lengths`. Without relevance global debiasing is off."""
        prompt, choices = self._prompting.texts[target], None
        if target.kind == "answer":
            prompt, choices = split_choices(prompt)
        return adatp.Request(
            key=key,
            visual=visual,
            prompt=prompt,
            choices=choices,
            segments=tuple(lengths),
            relevance=None if relevance is None else tuple(relevance),
            method=self._method,
            p=self._prompting.p,
            max_new_tokens=self._prompting.max_new_tokens,
            encoder_flops=self._encoder_flops * sum(lengths),
        )


def show_whole_video(target: Target, question: FloatArray, video_id: str, clips: Sequence[EmbeddedClip]) -> Shown:
    """What a question (D,) is shown of a video whose clips are all at hand: its most relevant frames, at most 32."""
    lengths = [length for clip in clips for length in clip.lengths]
    relevance = [score for clip in clips for score in segment_relevance(clip.means, question)]
    segments = [
        (segment_id_of(clip_id_of(video_id, clip.clip.clip_index), s), clip.edges_s[s], clip.edges_s[s + 1])
        for clip in clips
        for s in range(len(clip.lengths))
    ]
    return choose_shown(target, lengths, relevance, segments)
