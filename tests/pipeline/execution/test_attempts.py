"""Attempts against a slow truth: workers with several pieces of work in hand, of which some kill."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.execution.attempts import Attempts


@given(st.lists(st.integers(0, 2), min_size=1, max_size=8), st.integers(1, 4), st.booleans())
def test_only_what_kills_is_blamed(kills: list[int], room: int, one_at_a_time: bool) -> None:
    """`kills[w]` is how often work w kills whoever does it. Suspects are alone on a worker; others share one."""
    attempts, worker = Attempts(), 0
    left, killed = dict(enumerate(kills)), dict.fromkeys(range(len(kills)), 0)
    waiting = list(left)
    while waiting:
        worker += 1
        alone = [w for w in waiting if attempts.is_suspect(str(w))]
        hand = alone[:1] or waiting[:room]
        for work in hand:
            attempts.begin(str(work), worker)
        killer = next((w for w in hand if left[w]), None)
        for work in hand[: hand.index(killer)] if killer is not None else hand:
            attempts.end(str(work), worker)
            waiting.remove(work)
        if killer is not None:
            left[killer] -= 1
            in_hand = hand[hand.index(killer) :]
            killed[killer] += one_at_a_time or len(in_hand) == 1
            attempts.died(worker, one_at_a_time)
    assert {w: attempts.deaths(str(w)) for w in killed} == killed
    assert not any(attempts.is_suspect(str(w)) for w in killed), "what came back is cleared"
