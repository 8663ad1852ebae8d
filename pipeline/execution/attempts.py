"""Which work killed the processes that did it: counted outside of them, and only where they were when they died."""

from collections import Counter


class Attempts:
    """A process says what it begins. What it was at when another takes that over, it is taken to have died of.

    Work that a process had finished by then is not blamed, though it is done again with what shared its block.
    """

    def __init__(self) -> None:
        self._done_by: dict[str, str] = {}  # work -> the process that began it last
        self._is_at: dict[str, str] = {}  # process -> the work it began last
        self._deaths: Counter[str] = Counter()

    def begin(self, work: str, process: str) -> int:
        """Which attempt this is: one more than the number of processes that died of `work`."""
        before = self._done_by.get(work, process)
        if before != process and self._is_at[before] == work:
            self._deaths[work] += 1
        self._done_by[work], self._is_at[process] = process, work
        return self._deaths[work] + 1
