"""Attempts against a slow truth: blocks of work done again and again by processes that die where a killer is."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.execution.attempts import Attempts


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=4),
    st.integers(1, 3),
)
def test_only_what_was_being_done_is_blamed(blocks: list[list[int]], workers: int) -> None:
    """`blocks[b][i]` is how often work i of block b kills. `workers` processes work side by side, a block each at a
    time; a block whose process died is done again, whole, by a new one.
    """
    attempts = Attempts()
    left = {f"{b}-{i}": times for b, block in enumerate(blocks) for i, times in enumerate(block)}
    killed = dict.fromkeys(left, 0)
    waiting = [[f"{b}-{i}" for i in range(len(block))] for b, block in enumerate(blocks)]
    at_work: dict[str, list[str]] = {}
    whole: dict[str, list[str]] = {}
    n_processes = 0
    while waiting or at_work:
        while waiting and len(at_work) < workers:
            n_processes += 1
            process = f"p{n_processes}"
            whole[process] = waiting.pop(0)
            at_work[process] = list(whole[process])
        for process in list(at_work):
            work = at_work[process].pop(0)
            assert attempts.begin(work, process) == killed[work] + 1
            if left[work]:
                left[work] -= 1
                killed[work] += 1
                waiting.append(whole[process])
                del at_work[process]
            elif not at_work[process]:
                del at_work[process]


def test_a_process_that_begins_again_what_it_was_at_has_not_died() -> None:
    attempts = Attempts()
    assert [attempts.begin("a", "p"), attempts.begin("a", "p"), attempts.begin("a", "q")] == [1, 1, 2]
