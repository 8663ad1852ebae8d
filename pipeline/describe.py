"""Describe an item: captions of its clips and answers to questions, through the one engine.

Vision is encoded once for a clip, whatever the number of prompts; a question on a whole video reuses it.
Legend: n frames of a clip, S segments, D embedding width, q questions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

import adatp
from pipeline.config import Thresholds
from pipeline.embed import EmbeddedClip
from pipeline.evidence import FloatArray, choose_shown, segment_relevance
from pipeline.items import Shown
from pipeline.pixels import Normalisation, normalise
from pipeline.types import ClipFrames, clip_id_of, segment_id_of


@dataclass(frozen=True)
class Prompting:
    """How the model is asked: pruning, length, and the texts by stage name (`caption:...`, `answer:...:video`)."""

    prune: str
    p: float
    max_new_tokens: int
    texts: dict[str, str]


class Describer:
    """The Video LLM, loaded once, and what it needs to turn frames into requests."""

    def __init__(
        self, model: adatp.VideoLLM, normalisation: Normalisation, thresholds: Thresholds, prompting: Prompting
    ) -> None:
        self._model = model
        self._engine = adatp.Engine(model)
        self._normalisation = normalisation
        self._prompting = prompting
        self._method: str | adatp.AdaTP = prompting.prune
        if prompting.prune == "adatp":
            self._method = adatp.AdaTP(tau_t=thresholds.tau_t)

    def encode(self, clip: ClipFrames) -> adatp.Visual:
        """Frames (n, H, W, 3) -> the clip's visual tokens (n, c, d), once for all its prompts."""
        return self._model.encode(normalise(torch.from_numpy(clip.frames.copy()), self._normalisation))

    def caption(self, key: str, visual: adatp.Visual, lengths: Sequence[int], stage: str) -> adatp.Request:
        """A caption prompt names nothing, so global debiasing is off: no relevance (DESIGN section 4)."""
        return self._request(key, visual, lengths, None, stage)

    def answer(self, key: str, visual: adatp.Visual, shown: Shown) -> adatp.Request:
        """A question on the frames it was shown; `visual` holds all frames of the item in time order."""
        return self._request(key, visual[list(shown.places)], shown.lengths, shown.relevance, shown.stage)

    def run(self, requests: Sequence[adatp.Request]) -> dict[str, adatp.Result]:
        return self._engine.run(requests) if requests else {}

    def _request(
        self,
        key: str,
        visual: adatp.Visual,
        lengths: Sequence[int],
        relevance: Sequence[float] | None,
        stage: str,
    ) -> adatp.Request:
        return adatp.Request(
            key=key,
            visual=visual,
            prompt=self._prompting.texts[stage],
            segments=tuple(lengths),
            relevance=None if relevance is None else tuple(relevance),
            method=self._method,
            p=self._prompting.p,
            max_new_tokens=self._prompting.max_new_tokens,
        )


def show_whole_video(stage: str, question: FloatArray, video_id: str, clips: Sequence[EmbeddedClip]) -> Shown:
    """What a question (D,) is shown of a video whose clips are all at hand: its most relevant frames, at most 32."""
    lengths = [length for clip in clips for length in clip.lengths]
    relevance = [score for clip in clips for score in segment_relevance(clip.means, question)]
    segments = [
        (segment_id_of(clip_id_of(video_id, clip.clip.clip_index), s), clip.edges_s[s], clip.edges_s[s + 1])
        for clip in clips
        for s in range(len(clip.lengths))
    ]
    return choose_shown(stage, lengths, relevance, segments)
