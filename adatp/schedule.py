"""How many visual tokens each decoder layer may hold (METHOD 1.2; paper Sec. 4.1 and 4.3).

Layers are 0-based. Layers before `start` see all V0 visual tokens; entering `start` the budget is p * 40% of V0,
entering `end` it is p * 12%, linear in between and constant after. Every budget is a count of the *original* tokens.
"""

from fractions import Fraction
from math import floor

FIRST_SHARE = 0.40  # of V0 at p = 1, entering `start`
LAST_SHARE = 0.12  # of V0 at p = 1, entering `end` and after
DEFAULT_START = 2


def default_end(n_layers: int) -> int:
    """N - 12 ("the last 12 layers are unpruned"); N / 2 for decoders of fewer than 16 layers, too short for that."""
    return n_layers - 12 if n_layers >= 16 else max(DEFAULT_START + 1, n_layers // 2)


def check_span(n_layers: int, start: int, end: int) -> None:
    if not 2 <= start < end <= n_layers - 1:
        raise ValueError(
            f"expected 2 <= start < end <= {n_layers - 1} for {n_layers} layers, got start={start} end={end}"
        )


def share(layer: int, start: int, end: int) -> float:
    """rho(layer) at p = 1: the share of V0 that may enter `layer`."""
    if layer < start:
        return 1.0
    progress = min(1.0, (layer - start) / (end - start))
    return FIRST_SHARE + (LAST_SHARE - FIRST_SHARE) * progress


def rational(x: float) -> Fraction:
    """The fraction that a computed ratio stands for: halves and ties are then decided in integers, not by its noise."""
    return Fraction(x).limit_denominator(10**9)


def budgets(n_visual: int, n_layers: int, p: float, start: int, end: int) -> tuple[int, ...]:
    """Visual tokens allowed to enter each of the `n_layers` layers; never more than the `n_visual` there are.

    Rounded to the nearest, an exact half up.
    """
    exact = [n_visual * rational(p) * rational(share(layer, start, end)) for layer in range(n_layers)]
    return tuple(
        n_visual if layer < start else min(n_visual, floor(x + Fraction(1, 2))) for layer, x in enumerate(exact)
    )


def mean_share(n_visual: int, n_layers: int, p: float) -> float:
    """The mean over layers of the default schedule's share: what another method must keep to cost the same FLOPs.

    In the paper's accounting (linear layers of the LLM only) cost is linear in the tokens of each layer, so equal means
    are equal FLOPs, whatever the length of the text.
    """
    counts = budgets(n_visual, n_layers, p, DEFAULT_START, default_end(n_layers))
    return sum(counts) / (n_layers * n_visual)
