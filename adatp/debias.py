"""Global debiasing (Eq. 4-5) and local debiasing (Algorithm 1) as functions of numbers and tensors.

Legend: n frames of c positions each, S frames inside significant segments, m visual tokens still alive, G segments.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import floor

import torch
from torch import Tensor

from adatp.schedule import rational


def debiased_ratios(
    n: int, significant: int, r: float, alpha: float, gamma: float, literal: bool = False
) -> tuple[float, float]:
    """Eq. 4-5: the ratios (r_1, r_2) of significant segments and of the others, at overall ratio `r`.

    The default is the guarded form (METHOD 1.5): both at most 1, nothing lost, significant segments never below the
    others. `literal` follows the paper's letter, including its loss of budget when every segment is significant.

    Args:
        n: frames of the clip.
        significant: frames inside significant segments, 0..n.
        r: overall ratio of original tokens to keep, 0..1.
        alpha: alpha_boost. gamma: gamma_cap.
    """
    if significant == 0:
        return r, r  # Eq. 4 divides by zero: nobody is significant, everybody gets r
    boosted = min(alpha, gamma * n / significant) * r  # Eq. 4
    if literal:
        others = (r * n - boosted * significant) / (n - significant) if significant < n else r  # Eq. 5
        return boosted, others
    if significant == n:
        return r, r
    r1 = min(1.0, max(r, boosted))
    return r1, max(0.0, (r * n - r1 * significant) / (n - significant))


def quotas(lengths: Sequence[int], ratios: Sequence[float], c: int) -> list[int]:
    """Tokens each segment may keep: its ratio of its length * c, rounded by largest remainder so that nothing is lost.

    The sum is the rounded sum of the exact values (a half up), hence exactly the layer's budget. Ties go to the earlier
    segment. A quota of 0 is allowed: a segment nobody attends to may vanish.
    """
    exact = [max(Fraction(0), rational(ratio) * length * c) for length, ratio in zip(lengths, ratios, strict=True)]
    whole = [floor(x) for x in exact]
    missing = floor(sum(exact, Fraction(1, 2))) - sum(whole)
    by_remainder = sorted(range(len(exact)), key=lambda i: (whole[i] - exact[i], i))
    for i in by_remainder[:missing]:
        whole[i] += 1
    return whole


def top_of_each_segment(scores: Tensor, segment: Tensor, quota: Tensor) -> tuple[Tensor, Tensor]:
    """All tokens segment by segment, best first, (m,); and which of them are among their segment's best quota[g].

    Nothing here waits for the device: how many are chosen stays there.

    Args:
        scores: attention scores, (m,). Equal scores: the lower index is better.
        segment: segment of each token, (m,), int64.
        quota: tokens each segment may keep, (G,), int64; all are kept where there are fewer.
    """
    by_score = torch.sort(scores, descending=True, stable=True).indices  # (m,)
    walk = by_score[torch.sort(segment[by_score], stable=True).indices]  # (m,) segments in order, best first
    segment_walked = segment[walk]
    size = torch.zeros_like(quota).scatter_add_(0, segment, torch.ones_like(segment))  # (G,)
    first = size.cumsum(0) - size  # (G,) where each segment's walk begins
    rank = torch.arange(len(walk), device=walk.device) - first[segment_walked]
    return walk, rank < quota[segment_walked]


def first_at_each_position(
    walk: Tensor, chosen: Tensor, segment: Tensor, position: Tensor, n_segments: int, n_positions: int
) -> Tensor:
    """Algorithm 1: of the tokens chosen in `walk` those that are the first of their segment at their position, (m,).

    Args:
        walk, chosen: as `top_of_each_segment` gives them, (m,).
        segment, position: segment and index inside the frame of every token, (m,).
    """
    place = segment[walk] * n_positions + position[walk]  # (m,) one number per (segment, position)
    order = torch.arange(len(walk), device=walk.device)
    earliest = torch.full((n_segments * n_positions,), len(walk), device=walk.device)
    earliest.scatter_reduce_(0, place, torch.where(chosen, order, len(walk)), "amin")
    return chosen & (earliest[place] == order)
