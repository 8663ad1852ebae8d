"""Statistics against published values and slow transcriptions."""

from itertools import pairwise, product

import numpy as np
import pytest

from pipeline.evaluation.statistics import Interval, auc, holm, mcnemar, non_inferior, paired_bootstrap, wilson


def test_wilson_is_newcombes_published_example() -> None:
    interval = wilson(81, 263)  # Newcombe 1998, Table I: 0.2553 to 0.3662
    assert interval.low == pytest.approx(0.2553, abs=5e-5)
    assert interval.high == pytest.approx(0.3662, abs=5e-5)


def test_wilson_stays_inside_zero_and_one() -> None:
    assert wilson(0, 5).low == 0.0
    assert 0.4 < wilson(0, 5).high < 0.45
    assert wilson(5, 5).high == 1.0
    with pytest.raises(ValueError, match="hits <= n"):
        wilson(6, 5)


def pair(b: int, c: int, agree: int) -> tuple[np.ndarray, np.ndarray]:
    first = np.array([True] * b + [False] * c + [True] * agree)
    second = np.array([False] * b + [True] * c + [True] * agree)
    return first, second


@pytest.mark.parametrize(("b", "c"), [(18, 9), (30, 12), (26, 26)])
def test_mcnemar_is_the_binomial_tail_counted_out(b: int, c: int) -> None:
    n = b + c
    row = [1]
    for _ in range(n):  # Pascal's triangle
        row = [1, *(x + y for x, y in pairwise(row)), 1]
    expected = min(1.0, 2 * sum(row[: min(b, c) + 1]) / 2**n)
    assert mcnemar(*pair(b, c, 40)) == pytest.approx(expected)


def test_mcnemar_uses_mid_p_for_few_and_sees_no_difference_in_none() -> None:
    assert mcnemar(*pair(5, 0, 10)) == pytest.approx(2 * (1 / 32) - 1 / 32)
    assert mcnemar(*pair(0, 0, 10)) == 1.0


def test_bootstrap_agrees_with_resampling_items_one_by_one() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.random(120) < 0.8, rng.random(120) < 0.7
    strata = ["a"] * 80 + ["b"] * 40
    point, interval = paired_bootstrap(first, second, strata, draws=4000)
    difference = first.astype(float) - second
    a, b = difference[:80], difference[80:]
    slow = [(a[rng.integers(80, size=80)].mean() + b[rng.integers(40, size=40)].mean()) / 2 for _ in range(4000)]
    assert point == pytest.approx((a.mean() + b.mean()) / 2)
    assert interval.low == pytest.approx(np.quantile(slow, 0.025), abs=0.012)
    assert interval.high == pytest.approx(np.quantile(slow, 0.975), abs=0.012)


def test_unpaired_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="equally long"):
        mcnemar(np.array([True]), np.array([True, False]))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


def test_non_inferiority_asks_for_the_interval_not_the_point() -> None:
    assert non_inferior(Interval(-0.019, 0.03), 0.02)
    assert not non_inferior(Interval(-0.021, 0.03), 0.02)


def test_auc_counts_pairs() -> None:
    high, low = [0.9, 0.5, 0.5, 0.1], [0.5, 0.2, 0.0]
    slow = np.mean([1.0 if h > x else 0.5 if h == x else 0.0 for h, x in product(high, low)])
    assert auc(high, low) == pytest.approx(slow)
