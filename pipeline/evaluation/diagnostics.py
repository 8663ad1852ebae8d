"""What segmentation and relevance are worth before any model answers: cuts found, relevant frames told apart.

Both are held against the scene graph of a planted item. Evidence left after pruning, the third of these, is in
`Answer.evidence_kept_per_layer`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from pipeline.evaluation.statistics import auc


@dataclass(frozen=True)
class Diagnosis:
    """One item's cuts and relevance; see EVALS 4.4."""

    cuts_true: int
    cuts_found: int
    cuts_hit: int
    """Found exactly where they are."""
    relevance_auc: float
    """Chance that a frame of a scene with evidence is more relevant than another frame; nan where there is no other."""


@dataclass(frozen=True)
class Diagnostics:
    """Over all items."""

    segmentation_precision: float
    segmentation_recall: float
    segmentation_f1: float
    relevance_auc: dict[str, float]
    """Mean over the items of each type, and over `all`."""


def diagnose(
    scenes: Sequence[int], segments: Sequence[int], relevance: Sequence[float], evidence_frames: Sequence[int]
) -> Diagnosis:
    """Of one item.

    Args:
        scenes, segments: true and found lengths, in frames; both sum to n.
        relevance: of each segment, as the method gets it.
        evidence_frames: frames that hold evidence.
    """
    true, found = set(accumulate(scenes[:-1])), set(accumulate(segments[:-1]))
    per_frame = [score for length, score in zip(segments, relevance, strict=True) for _ in range(length)]
    scene_of = [i for i, length in enumerate(scenes) for _ in range(length)]
    matters = {scene_of[frame] for frame in evidence_frames}
    inside = [score for scene, score in zip(scene_of, per_frame, strict=True) if scene in matters]
    outside = [score for scene, score in zip(scene_of, per_frame, strict=True) if scene not in matters]
    return Diagnosis(len(true), len(found), len(true & found), auc(inside, outside) if inside and outside else math.nan)


def summarise(diagnoses: Sequence[Diagnosis], types: Sequence[str]) -> Diagnostics:
    """Cuts of all items together; relevance as a mean over items. `types` is the type of each item."""
    hit = sum(d.cuts_hit for d in diagnoses)
    true, found = sum(d.cuts_true for d in diagnoses), sum(d.cuts_found for d in diagnoses)
    by_type: dict[str, list[float]] = {}
    for type_, d in zip(types, diagnoses, strict=True):
        if not math.isnan(d.relevance_auc):
            by_type.setdefault(type_, []).append(d.relevance_auc)
            by_type.setdefault("all", []).append(d.relevance_auc)
    return Diagnostics(
        hit / found if found else math.nan,
        hit / true if true else math.nan,
        2 * hit / (true + found) if true + found else math.nan,
        {type_: sum(values) / len(values) for type_, values in by_type.items()},
    )
