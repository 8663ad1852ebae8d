"""Embed a clip: frame vectors, the segments they fall into, and how each segment borders the frame before it.

Legend: n frames of a clip, S segments, D embedding width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from adatp import segment_lengths
from pipeline.decoding.resize import Normalisation
from pipeline.errors import NotFinite
from pipeline.items.evidence import FloatArray, segment_means
from pipeline.models.encoder import Encoder
from pipeline.models.pixels import DeviceFrames
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
    encoder: Encoder,
    normalisation: Normalisation,
    tau_s: float,
    clips: Sequence[ClipFrames],
    pixels: Sequence[DeviceFrames],
    has_context: bool,
) -> list[EmbeddedClip]:
    """Vectors and segments of consecutive clips. With `has_context` the first clip is only the frame before them.

    `pixels` are the frames for the Video LLM, shared where the encoder reads the same. Raises NotFinite.
    """
    before: FloatArray | None = None
    embedded = []
    for index, (clip, shared) in enumerate(zip(clips, pixels, strict=True)):
        own = None if clip.encoder_frames is None else DeviceFrames(clip.encoder_frames, encoder.device)
        read = shared.normalised(normalisation, keep=True) if own is None else own.normalised(normalisation)
        vectors = encoder.images(read).numpy()  # (n, D)
        is_finite = bool(np.isfinite(vectors).all())
        if not (has_context and index == 0):
            if not is_finite:
                raise NotFinite(f"the encoder gave no numbers for a frame of clip {clip.clip_index}")
            embedded.append(_segmented(clip, vectors, tau_s, before))
        before = vectors[-1] if is_finite else None
    return embedded


def _segmented(clip: ClipFrames, vectors: FloatArray, tau_s: float, before: FloatArray | None) -> EmbeddedClip:
    lengths = tuple(segment_lengths(torch.from_numpy(vectors), tau_s))
    starts = np.cumsum([0, *lengths[:-1]])
    scores = [
        float(vectors[i] @ vectors[i - 1]) if i > 0 else (None if before is None else float(vectors[0] @ before))
        for i in starts
    ]
    return EmbeddedClip(clip, vectors, lengths, tuple(scores), segment_means(vectors, lengths))
