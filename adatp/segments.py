"""Segments of a clip: runs of consecutive similar frames (paper Sec. 3.3, Eq. 3; METHOD 1.1).

Legend: n frames, D width of a frame feature, G segments.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

TAU_S = 0.95  # paper Sec. 4.1, for every model; depends on the feature, so measure before trusting it elsewhere


def adjacent_similarity(features: Tensor) -> Tensor:
    """Cosine of every frame with the one before it, in fp32: (n, D) -> (n - 1,)."""
    if features.ndim != 2:
        raise ValueError(f"expected one feature per frame, (n, D), got shape {tuple(features.shape)}")
    unit = torch.nn.functional.normalize(features.float(), dim=-1)
    return (unit[1:] * unit[:-1]).sum(-1)


def segment_lengths(features: Tensor, tau_s: float = TAU_S) -> tuple[int, ...]:
    """Lengths in frames of the segments: a new one begins where the cosine with the frame before is below `tau_s`.

    Args:
        features: one vector per frame, (n, D), n >= 1. Pooled-head output, mean patch or flattened patches of the
            vision encoder; the paper's symbols mean patches, this project's default is the pooled output.

    Returns:
        G lengths that sum to n.
    """
    n = len(features)
    if n == 0:
        raise ValueError("expected at least one frame, got none")
    cuts = (adjacent_similarity(features) < tau_s).nonzero().flatten() + 1
    edges = [0, *cuts.tolist(), n]
    return tuple(b - a for a, b in pairwise(edges))


def segment_relevance(lengths: Sequence[int], frame_similarity: Tensor) -> tuple[float, ...]:
    """Eq. 3 averaged: the mean over each segment's frames of the cosine of frame and question, (n,) -> G floats."""
    if sum(lengths) != len(frame_similarity):
        raise ValueError(f"segments of {sum(lengths)} frames but {len(frame_similarity)} similarities")
    return tuple(float(part.float().mean()) for part in torch.split(frame_similarity, list(lengths)))


def segment_of_frame(lengths: Sequence[int]) -> Tensor:
    """Index of the segment that holds each frame, (n,), int64."""
    return torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))


def representative_frames(lengths: Sequence[int], per_segment: int = 1) -> tuple[int, ...]:
    """Frames that stand for their segments: at most `per_segment` of each, spread evenly around its middle, ascending.

    What `adatp+repframes` encodes; the caller may encode these frames alone: `model.encode(pixels[list(frames)])`.
    """
    frames: list[int] = []
    begin = 0
    for length in lengths:
        k = min(per_segment, length)
        frames += [begin + (2 * i + 1) * length // (2 * k) for i in range(k)]
        begin += length
    return tuple(frames)


def segments_of_steps(
    members: Sequence[int], lengths: Sequence[int], relevance: Sequence[float] | None
) -> tuple[tuple[int, ...], tuple[float, ...] | None]:
    """Segments counted in steps instead of frames, for towers that make one grid of several frames.

    A step belongs to the segment that holds most of its frames; of equals to the more relevant, else to the earlier.
    A segment that is left without a step is gone, and its relevance with it.

    Args:
        members: frames shown in each step, in order. lengths: frames of each segment; both have the same sum.
        relevance: one score per segment, or None.
    """
    segment_of = [g for g, length in enumerate(lengths) for _ in range(length)]
    owners: list[int] = []
    begin = 0
    for shown in members:
        held = segment_of[begin : begin + shown]
        begin += shown
        owners.append(max(set(held), key=lambda g: (held.count(g), relevance[g] if relevance else 0.0, -g)))
    left = sorted(set(owners))
    return tuple(owners.count(g) for g in left), None if relevance is None else tuple(relevance[g] for g in left)
