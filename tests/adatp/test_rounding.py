"""Budgets at exact halves and ties between segments are decided in integers, against exact rational arithmetic."""

from fractions import Fraction
from math import floor

from hypothesis import given
from hypothesis import strategies as st

from adatp.debias import quotas
from adatp.schedule import budgets

HALF = Fraction(1, 2)


def test_an_exact_half_rounds_up() -> None:
    assert budgets(25, 8, 1.0, 2, 4)[3] == 7  # 0.26 of 25 is 6.5
    assert budgets(75, 8, 1.0, 2, 4)[3] == 20  # 0.26 of 75 is 19.5
    assert quotas([1], [0.5], 1) == [1]


def test_noise_of_a_ratio_gives_no_tie_away() -> None:
    assert quotas([3, 1, 1], [0.1 + 0.2, 0.3, 0.3], 5) == [5, 2, 1]  # 4.5, 1.5 and 1.5 of 7.5, rounded to 8
    assert quotas([1, 1, 1, 1], [0.7 * 0.7] * 4, 50) == [25, 25, 24, 24]  # 24.5 each: the earlier ones


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 200)), min_size=1, max_size=12),
    st.integers(1, 200),
    st.sampled_from([7, 12, 49, 100, 196, 1000]),
)
def test_quotas_equal_exact_arithmetic(parts: list[tuple[int, int]], c: int, denominator: int) -> None:
    lengths = [length for length, _ in parts]
    exact = [Fraction(n, denominator) * length * c for length, n in parts]
    whole = [floor(x) for x in exact]
    order = sorted(range(len(exact)), key=lambda i: (-(exact[i] - whole[i]), i))
    expected = [n + (i in order[: floor(sum(exact) + HALF) - sum(whole)]) for i, n in enumerate(whole)]
    assert quotas(lengths, [n / denominator for _, n in parts], c) == expected


@given(st.integers(1, 20_000), st.sampled_from([0.5, 1.0, 1.5, 2.0, 0.3]), st.integers(4, 30))
def test_budgets_equal_exact_arithmetic(n_visual: int, p: float, n_layers: int) -> None:
    start, end = 2, n_layers - 1
    found = budgets(n_visual, n_layers, p, start, end)
    for layer in range(start, n_layers):
        share = Fraction(40 * (end - start) - 28 * (layer - start), 100 * (end - start))
        assert found[layer] == min(n_visual, floor(n_visual * Fraction(str(p)) * share + HALF))
