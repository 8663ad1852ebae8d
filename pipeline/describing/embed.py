"""Embed a clip: frame vectors, the segments they fall into, and how each segment borders the frame before it.

Legend: n frames of a clip, S segments, D embedding width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from adatp import segment_lengths
from pipeline.decoding.resize import Normalisation
from pipeline.items.evidence import FloatArray, segment_means
from pipeline.models.encoder import Encoder
from pipeline.models.pixels import normalise
from pipeline.types import ClipFrames


@dataclass(frozen=True)
class EmbeddedClip:
    """A clip whose frames have vectors and segments. `boundary_scores` may start with None: the video's first frame."""

    clip: ClipFrames
    vectors: FloatArray  # (n, D) unit
    lengths: tuple[int, ...]  # S, frames of each segment; sums to n
    boundary_scores: tuple[float | None, ...]  # S, cosine of a segment's first frame with the frame before
    means: FloatArray  # (S, D), not renormalised

    @property
    def starts(self) -> list[int]:
        """Index of each segment's first frame."""
        return [sum(self.lengths[:s]) for s in range(len(self.lengths))]

    @property
    def edges_s(self) -> list[float]:
        """S + 1 times: where segments begin, and the end of the clip."""
        return [self.clip.start_s, *(self.clip.pts_s[i] for i in self.starts[1:]), self.clip.end_s]


def embed_clips(
    encoder: Encoder, normalisation: Normalisation, tau_s: float, clips: Sequence[ClipFrames], has_context: bool
) -> list[EmbeddedClip]:
    """Vectors and segments of consecutive clips. With `has_context` the first clip is only the frame before them."""
    before: FloatArray | None = None
    embedded = []
    for index, clip in enumerate(clips):
        pixels = clip.frames if clip.encoder_frames is None else clip.encoder_frames
        vectors = encoder.images(normalise(torch.from_numpy(pixels.copy()), normalisation)).numpy()  # (n, D)
        if not (has_context and index == 0):
            embedded.append(_segmented(clip, vectors, tau_s, before))
        before = vectors[-1]
    return embedded


def _segmented(clip: ClipFrames, vectors: FloatArray, tau_s: float, before: FloatArray | None) -> EmbeddedClip:
    lengths = tuple(segment_lengths(torch.from_numpy(vectors), tau_s))
    starts = np.cumsum([0, *lengths[:-1]])
    scores = [
        float(vectors[i] @ vectors[i - 1]) if i > 0 else (None if before is None else float(vectors[0] @ before))
        for i in starts
    ]
    return EmbeddedClip(clip, vectors, lengths, tuple(scores), segment_means(vectors, lengths))
