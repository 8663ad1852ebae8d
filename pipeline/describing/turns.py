"""One thread has the models; items of several callers take turns on it, and share the engine's batches.

A caller's item is first prepared (embedded, encoded, its requests made), then asked. The engine steps between: while it
has room, another item is prepared; while it has none, it goes on with those it has. What callers do besides (reading
rows, writing tables) overlaps with that.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch

import adatp

T = TypeVar("T")
Prepared = tuple[T, Sequence[adatp.Request]]

_IDLE_S = 5.0
"""The thread ends after so long without work, and what it holds with it; the next item starts another."""


@dataclass
class _Item(Generic[T]):
    prepare: Callable[[], Prepared[T]]
    done: "Future[tuple[T, dict[str, adatp.Result]]]" = field(default_factory=Future)
    made: Any = None
    results: dict[str, adatp.Result] = field(default_factory=dict)
    n_open: int = 0


class Turns:
    """`do(prepare)` from any thread: what `prepare` made, and the results of the requests it came with."""

    def __init__(self, engine: adatp.Engine | None) -> None:
        self._engine = engine
        self._items: queue.Queue[_Item[Any]] = queue.Queue()
        self._asked: dict[str, _Item[Any]] = {}  # key of a request -> who waits for it
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def do(self, prepare: Callable[[], Prepared[T]]) -> tuple[T, dict[str, adatp.Result]]:
        """Raises what `prepare` raises, or torch.OutOfMemoryError where one of its clips does not fit alone."""
        item = _Item(prepare)
        with self._lock:
            self._items.put(item)
            if self._thread is None:
                self._thread = threading.Thread(target=self._turn, name="models", daemon=True)
                self._thread.start()
        return item.done.result()

    def _turn(self) -> None:
        while True:
            if (item := self._next_item()) is not None:
                self._prepare(item)
            elif self._asked:
                self._step()
            else:
                with self._lock:
                    if self._items.empty():
                        self._thread = None
                        return

    def _next_item(self) -> _Item[Any] | None:
        """The next item, if there is room for it; waits for one only while there is nothing else to do."""
        try:
            if not self._asked:
                return self._items.get(timeout=_IDLE_S)
            return self._items.get_nowait() if self._engine is not None and self._engine.free_places else None
        except queue.Empty:
            return None

    def _prepare(self, item: _Item[Any]) -> None:
        try:
            item.made, requests = item.prepare()
            if requests:
                assert self._engine is not None
                self._engine.submit(requests)
        except BaseException as error:  # whatever it is, the caller waits for it
            item.done.set_exception(error)
            return
        item.n_open = len(requests)
        self._asked |= {request.key: item for request in requests}
        if not requests:
            item.done.set_result((item.made, {}))

    def _step(self) -> None:
        assert self._engine is not None
        try:
            results = self._engine.step()
        except adatp.DoesNotFit as error:
            self._fail(self._asked[error.key], error)
            return
        except BaseException as error:  # whatever it is, callers wait for it
            self._engine.give_up(self._asked)
            for item in {id(item): item for item in self._asked.values()}.values():
                item.done.set_exception(error)
            self._asked.clear()
            return
        for key, result in results.items():
            item = self._asked.pop(key)
            item.results[key] = result
            item.n_open -= 1
            if not item.n_open:
                item.done.set_result((item.made, item.results))

    def _fail(self, item: _Item[Any], error: torch.OutOfMemoryError) -> None:
        """The item ends; its other requests are not asked any more."""
        mine = [key for key, owner in self._asked.items() if owner is item]
        assert self._engine is not None
        self._engine.give_up(mine)
        for key in mine:
            del self._asked[key]
        item.done.set_exception(error)
