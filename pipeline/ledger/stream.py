"""The stream of a run: videos are taken up newest first, handed to workers piece by piece, and come out finished.

    taken up --probe--> items --decode, describe, stage--> receipts --questions on the whole--> finished

There is no barrier: a video is finished when its last receipt is there, whatever its neighbours do. More videos are
taken up when workers would soon have nothing to do.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from pipeline.execution.workers import Workers
from pipeline.index.staging import staged_keys, staged_meta
from pipeline.items.item import Item, Probed, Receipt
from pipeline.items.wire import staged_receipt
from pipeline.ledger.cutter import Cutter
from pipeline.ledger.plan import Todo
from pipeline.ledger.video_work import VideoWork
from pipeline.storage.base import Storage

LOOK_EVERY_S = 0.5
"""How long the driver waits for workers before it looks at budget, commits and nodes."""


class Staged:
    """What an earlier run staged, which is not done again."""

    def __init__(self, storage: Storage) -> None:
        self._storage, self._keys = storage, staged_keys(storage)

    def receipt(self, item: Item) -> Receipt | None:
        """The item's receipt if all of it is staged: what failed in part then may be whole now."""
        if item.key not in self._keys:
            return None
        receipt = staged_receipt(item, staged_meta(self._storage, item.key))
        return receipt if receipt is not None and receipt.failure is None else None


class Stream:
    """Iterate over it: finished videos as they come, and None whenever nothing came for a moment."""

    def __init__(
        self, planned: Sequence[Todo], cutter: Cutter, workers: Workers, staged: Staged, is_spent: Callable[[], bool]
    ) -> None:
        self._planned, self._cutter, self._workers, self._staged = planned, cutter, workers, staged
        self._is_spent = is_spent
        self._on_the_way: dict[str, VideoWork] = {}
        self._unasked: list[VideoWork] = []  # their questions wait for the first describe worker to embed them
        self._n_taken = 0
        self.n_clips = 0  # that have rows

    @property
    def left(self) -> list[Todo]:
        """What was planned and is not finished: for a later run."""
        return [*(v.todo for v in self._on_the_way.values()), *self._planned[self._n_taken :]]

    def __iter__(self) -> Iterator[VideoWork | None]:
        """Until everything planned is finished, or the budget is spent: what is on its way then is given up."""
        coming = self._cutter.taken_up(self._planned)
        while not self._is_spent():
            while self._workers.wants_more and (video := next(coming, None)) is not None:
                self._n_taken += 1
                yield from self._take_up(video)
            if self._unasked and self._workers.questions is not None:
                unasked, self._unasked = self._unasked, []
                for video in unasked:
                    yield from self._ask(video)
            if not self._on_the_way and self._n_taken == len(self._planned):
                return
            for result in self._workers.results(LOOK_EVERY_S):
                yield from self._heard(result)
            yield None

    def _take_up(self, video: VideoWork) -> Iterable[VideoWork]:
        self._on_the_way[video.source.video_id] = video
        if video.todo.mode == "index":
            self._workers.probe(video.source)
            return ()
        return self._hand_in(video)

    def _heard(self, result: Probed | Receipt) -> Iterable[VideoWork]:
        if isinstance(result, Probed):
            video = self._on_the_way[result.source.video_id]
            video.probed = result
            return self._hand_in(video)
        video = self._on_the_way[result.video_id]
        self.n_clips += result.n_clips
        (video.answers if result.kind == "answer" else video.receipts).append(result)
        return self._go_on(video)

    def _hand_in(self, video: VideoWork) -> Iterable[VideoWork]:
        video.items = self._cutter.items(video)
        video.receipts += self._run(video.items)
        return self._go_on(video)

    def _run(self, items: Iterable[Item]) -> list[Receipt]:
        """Give items to workers; the receipts of those that are staged already."""
        found = []
        for item in items:
            receipt = self._staged.receipt(item)
            if receipt is None:
                self._workers.run(item)
            else:
                found.append(receipt)
        self.n_clips += sum(receipt.n_clips for receipt in found)
        return found

    def _go_on(self, video: VideoWork) -> Iterable[VideoWork]:
        """The video, if nothing more of it is to come."""
        if len(video.receipts) < len(video.items) or len(video.answers) < len(video.asked):
            return ()
        if not video.asked and self._cutter.needs_asking(video):
            self._unasked.append(video)
            return ()
        del self._on_the_way[video.source.video_id]
        return (video,)

    def _ask(self, video: VideoWork) -> Iterable[VideoWork]:
        assert self._workers.questions is not None
        video.asked = self._cutter.questions(video, self._workers.questions)
        video.answers += self._run(video.asked)
        if not video.asked:
            del self._on_the_way[video.source.video_id]
            return (video,)
        return self._go_on(video)


def receipts_of(items: Iterable[Item], workers: Workers, staged: Staged) -> Iterator[Receipt]:
    """Receipts of items in any order. What an earlier run staged is not done again."""
    for item in items:
        if (receipt := staged.receipt(item)) is None:
            workers.run(item)
        else:
            yield receipt
    while not workers.is_idle:
        for result in workers.results(LOOK_EVERY_S):
            if isinstance(result, Receipt):
                yield result
