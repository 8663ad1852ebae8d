"""Intervals for scores whose questions hang together by video: whole videos are drawn again, in pairs. Numpy alone.

Legend: K settings, n items, D draws, C clusters.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.statistics import Interval

Table = npt.NDArray[np.bool_]  # (K, n)
DRAWS = 10_000
_CHUNK = 500


def scores(correct: Table, counted: Table, parts: Sequence[str], n_parts: int) -> npt.NDArray[np.float64]:
    """Mean over `n_parts` parts of the share of counted items that are right, (K,). One part: a plain share."""
    names = np.asarray(parts)
    total = np.zeros(len(correct))
    for part in sorted(set(parts)):
        of = names == part
        n = counted[:, of].sum(1)
        right = (correct & counted)[:, of].sum(1)
        total += np.divide(right, n, out=np.zeros(len(correct)), where=n > 0) / n_parts
    return total


def bootstrap(
    correct: Table, counted: Table, parts: Sequence[str], n_parts: int, clusters: Sequence[str], seed: int = 0
) -> npt.NDArray[np.float64]:
    """The same score for DRAWS resamples of whole clusters inside each part, (K, D); settings share every draw."""
    if not len(parts) == len(clusters) == correct.shape[1] or correct.shape != counted.shape:
        raise ValueError(
            f"expected a part and a cluster per item of {correct.shape}, got {len(parts)}, {len(clusters)}"
        )
    rng, names, owners = np.random.default_rng(seed), np.asarray(parts), np.asarray(clusters)
    total = np.zeros((len(correct), DRAWS))
    for part in sorted(set(parts)):
        of = names == part
        _, place = np.unique(owners[of], return_inverse=True)
        n_clusters = int(place.max()) + 1
        right, n = (_per_cluster(table[:, of], place, n_clusters) for table in (correct & counted, counted))  # (K, C)
        for begin in range(0, DRAWS, _CHUNK):
            weights = rng.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=_CHUNK).T  # (C, chunk)
            drawn_n = n @ weights
            share = np.divide(right @ weights, drawn_n, out=np.zeros(drawn_n.shape), where=drawn_n > 0)
            total[:, begin : begin + _CHUNK] += share / n_parts
    return total


def interval(draws: npt.NDArray[np.float64]) -> Interval:
    """The middle 95% of draws (D,)."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(low), float(high))


def _per_cluster(table: Table, place: npt.NDArray[np.intp], n_clusters: int) -> npt.NDArray[np.float64]:
    return np.stack([np.bincount(place, weights=row, minlength=n_clusters) for row in table])
