"""Which work kills the workers that have it in hand. Kept outside of them, by whoever hands work out.

A worker that dies with one piece of work in hand died of it. Of several, each is only suspected: a suspect is next
tried alone on a worker, where a death is proof and a success clears it.
"""

from collections import Counter


class Attempts:
    """Who has what in hand, and what workers died of."""

    def __init__(self) -> None:
        self._in_hand: dict[int, list[str]] = {}  # worker -> work begun there and not ended, in order
        self._deaths: Counter[str] = Counter()
        self._suspects: set[str] = set()

    def begin(self, work: str, worker: int) -> None:
        self._in_hand.setdefault(worker, []).append(work)

    def end(self, work: str, worker: int) -> None:
        """It came back. Nothing it did killed the worker."""
        self._in_hand[worker].remove(work)
        self._suspects.discard(work)

    def died(self, worker: int, one_at_a_time: bool) -> None:
        """The worker is gone. `one_at_a_time`: it took what it was given in order, so the first is to blame."""
        in_hand = self._in_hand.pop(worker, [])
        if in_hand and (one_at_a_time or len(in_hand) == 1):
            self._deaths[in_hand[0]] += 1
            self._suspects.add(in_hand[0])
        else:
            self._suspects.update(in_hand)

    def deaths(self, work: str) -> int:
        """Workers that died of this work, proven."""
        return self._deaths[work]

    def is_suspect(self, work: str) -> bool:
        """Whether it is to be tried alone."""
        return work in self._suspects
