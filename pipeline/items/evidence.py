"""Which segments are about a question, and which frames of a video are shown to the model for it. Pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config import FRAMES_PER_CLIP
from pipeline.items.item import Shown
from pipeline.types import Target

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Questions:
    """Questions in the encoder's space."""

    vectors: Mapping[Target, FloatArray]  # (D,), unit
    cut: frozenset[Target]  # those whose text is longer than the encoder reads; the vector is of its beginning


def segment_means(frame_vectors: FloatArray, lengths: Sequence[int]) -> FloatArray:
    """Means of the unit frame vectors (n, D) over consecutive runs of `lengths` -> (S, D), not renormalised.

    The dot product of a row with a unit text vector is the segment's relevance (paper Eq. 3, averaged).
    """
    if sum(lengths) != len(frame_vectors):
        raise ValueError(
            f"segment lengths {list(lengths)} sum to {sum(lengths)}, but there are {len(frame_vectors)} frames"
        )
    starts = np.cumsum([0, *lengths[:-1]])
    sums = np.add.reduceat(frame_vectors, starts, axis=0)  # (S, D)
    means: FloatArray = (sums / np.asarray(lengths)[:, None]).astype(np.float32)
    return means


def select_frames(lengths: Sequence[int], relevance: Sequence[float], budget: int) -> list[list[int]]:
    """At most `budget` frames, from the most relevant segments: frame indices kept of each segment, in time order.

    Segments are taken whole, most relevant first (ties: the earlier); the one that does not fit any more gives evenly
    spaced frames, and what comes after it gives none.
    """
    starts = np.cumsum([0, *lengths])
    kept: list[list[int]] = [[] for _ in lengths]
    left = budget
    for segment in sorted(range(len(lengths)), key=lambda s: (-relevance[s], s)):
        if left == 0:
            break
        take = min(left, lengths[segment])
        offsets = np.linspace(0, lengths[segment] - 1, take).round().astype(int)
        kept[segment] = (starts[segment] + offsets).tolist()
        left -= take
    return kept


def choose_shown(
    target: Target, lengths: Sequence[int], relevance: Sequence[float], segments: Sequence[tuple[str, float, float]]
) -> Shown:
    """Frames of the most relevant segments, as `Shown`. `segments` are (segment_id, start_s, end_s), in time order."""
    kept = select_frames(lengths, relevance, FRAMES_PER_CLIP)
    used = [s for s, frames in enumerate(kept) if frames]
    ranked = sorted(used, key=lambda s: (-relevance[s], s))
    return Shown(
        target=target,
        places=tuple(int(f) for s in used for f in kept[s]),
        lengths=tuple(len(kept[s]) for s in used),
        relevance=tuple(relevance[s] for s in used),
        evidence=tuple(
            {"segment_id": segments[s][0], "start_s": segments[s][1], "end_s": segments[s][2], "score": relevance[s]}
            for s in ranked
        ),
    )


def stored_means(segments: pa.Table) -> FloatArray:
    """The embedding column of segments, (S, D), in fp32."""
    column = segments["embedding"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    means: FloatArray = flat.reshape(len(segments), -1)
    return means


def segment_relevance(means: FloatArray, question: FloatArray) -> list[float]:
    """Segment means (S, D) against a unit question vector (D,) -> S scores (paper Eq. 3, averaged), in fp32."""
    return [float(score) for score in means.astype(np.float32) @ question.astype(np.float32)]
