"""Frame numbers of spans at exact rates: against counting every frame's own time."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.exporting.rates import STANDARD, common_rate, frames_in, parse_rate, rational_rate, timecode_rate


@given(st.sampled_from(STANDARD), st.integers(0, 200_000), st.integers(1, 500))
def test_a_span_that_begins_and_ends_with_frames_holds_these(rate: Fraction, first: int, n: int) -> None:
    assert frames_in(float(first / rate), float((first + n) / rate), rate) == (first, first + n)


@given(st.sampled_from(STANDARD), st.integers(0, 2000), st.floats(0.1, 20))
def test_any_span_holds_the_frames_whose_time_lies_in_it(rate: Fraction, start_ms: int, length_s: float) -> None:
    start_s = start_ms / 1000
    end_s = start_s + length_s
    first, end = frames_in(start_s, end_s, rate)
    slow = [k for k in range(2000) if start_s * rate - 0.05 <= k < end_s * rate - 0.05]
    assert (first, end) == (slow[0], slow[-1] + 1)


@given(st.sampled_from(STANDARD), st.floats(-1e-4, 1e-4))
def test_a_measured_rate_becomes_the_exact_one(rate: Fraction, error: float) -> None:
    assert rational_rate(float(rate) * (1 + error), False) == rate


def test_other_rates_are_counted_in_a_multiple_or_the_next_above() -> None:
    assert [timecode_rate(Fraction(n)) for n in (10, 12, 15, 20, 26, 120)] == [
        30,
        24,
        30,
        60,
        Fraction(30000, 1001),
        60,
    ]
    assert rational_rate(17.3, True) == Fraction(24000, 1001)
    assert rational_rate(None, None) == 25
    assert common_rate([Fraction(25), Fraction(30), Fraction(30)]) == 30


@pytest.mark.parametrize(
    ("text", "rate"), [("29.97", Fraction(30000, 1001)), ("25", Fraction(25)), ("24000/1001", Fraction(24000, 1001))]
)
def test_rates_are_read_as_people_write_them(text: str, rate: Fraction) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["0", "-25", "abc", "12.5", "1/0"])
def test_what_is_no_rate_of_time_code_is_refused(text: str) -> None:
    with pytest.raises((ValueError, ZeroDivisionError)):
        parse_rate(text)
