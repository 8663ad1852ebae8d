"""Intervals and paired tests for accuracies, exact where exactness is cheap. Numpy alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Z_95 = 1.959963984540054
Hits = npt.NDArray[np.bool_]  # (n,) right or wrong, item by item


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


def wilson(hits: int, n: int) -> Interval:
    """Wilson's score interval of a share at 95%: holds for few items too, unlike the normal one (Wilson 1927)."""
    if not 0 <= hits <= n or n == 0:
        raise ValueError(f"expected 0 <= hits <= n and n > 0, got hits={hits}, n={n}")
    share, z2 = hits / n, Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def mcnemar(first: Hits, second: Hits) -> float:
    """Two-sided exact McNemar test of two methods on the same items: the binomial tail of the discordant ones.

    Mid-p below 25 discordant items, where the exact test is too cautious (Fagerland 2013).
    """
    _check_paired(first, second)
    b, c = int((first & ~second).sum()), int((~first & second).sum())
    n = b + c
    if n == 0:
        return 1.0
    log_half = n * math.log(0.5)

    def mass(k: int) -> float:
        return math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + log_half)

    tail = sum(mass(k) for k in range(min(b, c) + 1))
    if n < 25:
        tail -= 0.5 * mass(min(b, c))
    return min(1.0, 2 * tail)


def paired_bootstrap(
    first: Hits, second: Hits, strata: Sequence[str], draws: int = 10_000, seed: int = 0
) -> tuple[float, Interval]:
    """Macro difference `first` - `second` over strata, and its 95% interval.

    Items are resampled in pairs inside each stratum. One item a clip, so items are independent
    and no cluster is needed.
    """
    _check_paired(first, second)
    if len(strata) != len(first):
        raise ValueError(f"expected a stratum for each of {len(first)} items, got {len(strata)}")
    rng = np.random.default_rng(seed)
    difference = first.astype(np.float64) - second.astype(np.float64)
    names = np.asarray(strata)
    means, point = np.zeros(draws), 0.0
    distinct = sorted(set(strata))
    for name in distinct:
        own = difference[names == name]
        point += own.mean() / len(distinct)
        # A stratum's differences take three values, so resampling them is one multinomial draw.
        shares = [(own == value).mean() for value in (-1, 0, 1)]
        counts = rng.multinomial(len(own), shares, size=draws)
        means += (counts[:, 2] - counts[:, 0]) / len(own) / len(distinct)
    low, high = np.quantile(means, [0.025, 0.975])
    return point, Interval(float(low), float(high))


def bootstrap_mean(differences: npt.NDArray[np.float64], draws: int = 10_000, seed: int = 0) -> tuple[float, Interval]:
    """The mean of paired differences and its 95% interval, items resampled."""
    if differences.ndim != 1 or not len(differences):
        raise ValueError(f"expected a vector of at least one difference, got shape {differences.shape}")
    rng = np.random.default_rng(seed)
    means = np.array([differences[rng.integers(len(differences), size=len(differences))].mean() for _ in range(draws)])
    low, high = np.quantile(means, [0.025, 0.975])
    return float(differences.mean()), Interval(float(low), float(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment, in the order given."""
    order = np.argsort(p_values)
    adjusted = np.empty(len(p_values))
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, (len(p_values) - rank) * p_values[int(index)])
        adjusted[index] = min(1.0, highest)
    return [float(p) for p in adjusted]


def non_inferior(interval: Interval, margin: float) -> bool:
    """Whether a difference's interval excludes a loss of `margin` or more. Absence of significance would not do."""
    if margin <= 0:
        raise ValueError(f"expected a positive margin, got {margin}")
    return interval.low > -margin


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Chance that a positive outranks a negative, ties half (Mann-Whitney)."""
    if not len(positive) or not len(negative):
        raise ValueError(f"expected both kinds, got {len(positive)} positive and {len(negative)} negative")
    high, low = np.asarray(positive, np.float64), np.sort(np.asarray(negative, np.float64))
    below = np.searchsorted(low, high, "left")
    ties = np.searchsorted(low, high, "right") - below
    return float((below + 0.5 * ties).mean() / len(low))


def _check_paired(first: Hits, second: Hits) -> None:
    if first.shape != second.shape or first.ndim != 1 or first.dtype != np.bool_ or second.dtype != np.bool_:
        raise ValueError(
            f"expected two equally long bool vectors, got {first.dtype}{first.shape} and {second.dtype}{second.shape}"
        )
