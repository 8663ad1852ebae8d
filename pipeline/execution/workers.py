"""Workers for the length of a run: work is handed in, and what became of it comes back in any order.

    video --probe--> Probed          item --decode--> frames --describe--> Receipt

Two pools, each between bounds. A `Host` carries the calls: Ray's actors (on_ray.py), or this process (in_process.py).
Everything else is here and the same for both: who gets what, how much lies decoded at a time, what a dead worker had in
hand, and when another worker is asked for.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pipeline.config import CLIPS_PER_ITEM, DescribeSetup, IndexConfig
from pipeline.errors import JobError, WorkerLost
from pipeline.execution.attempts import Attempts
from pipeline.execution.pools import Pools, StageLoad
from pipeline.execution.stages import MAX_DEATHS, killed_twice, receipt_of
from pipeline.items.item import Failure, Item, Probed, Receipt
from pipeline.types import Source

if TYPE_CHECKING:
    from pipeline.items.evidence import Questions

Pool = Literal["decode", "describe"]
POOLS: tuple[Pool, Pool] = ("decode", "describe")

CALLS_A_DECODER = 2
"""One it works on, one that waits for it: the driver's own pace then costs a worker nothing."""

PROBES_AHEAD = 8
"""Probed items that wait for each decode worker: enough that it never waits for a header."""

IDLE_S = 60.0
"""A worker above its pool's minimum that had nothing to do for so long is given back."""

MAX_START_DEATHS = 3
"""Workers that die one after the other before they are ready: what kills them is no video."""


@dataclass(eq=False)
class Call:
    """One call to one worker. `frames` is the host's handle on an item's decoded row."""

    what: Literal["probe", "decode", "describe"]
    work: Source | Item
    frames: Any = None
    n_bytes: int = 0
    only: tuple[int, ...] | None = None  # places of the clips to describe; None: all, at once
    is_trial: bool = False

    @property
    def name(self) -> str:
        """What attempts are counted by."""
        key = self.work.key if isinstance(self.work, Item) else self.work.video_id
        return f"{self.what}-{key}{f'-{self.only[0]}' if self.is_trial and self.only else ''}"

    @property
    def n_clips(self) -> int:
        return len(self.work.clips) if isinstance(self.work, Item) else 0


@dataclass(frozen=True)
class Ready:
    """A worker can be called; a describe worker brings the recipe's questions as its encoder sees them."""

    worker: int
    questions: "Questions | None" = None


@dataclass(frozen=True)
class Decoded:
    """A decode call came back with frames, n_bytes of them where the host keeps them."""

    worker: int
    call: Call
    frames: Any
    n_bytes: int


@dataclass(frozen=True)
class Finished:
    """A call came back with what its caller waits for."""

    worker: int
    call: Call
    value: Probed | Receipt


@dataclass(frozen=True)
class FramesLost:
    """Decoded frames went with their node before they could be described."""

    worker: int
    call: Call


@dataclass(frozen=True)
class Died:
    """The worker is gone, with everything it had in hand."""

    worker: int


Event = Ready | Decoded | Finished | FramesLost | Died


class Host(Protocol):
    """Starts workers, carries calls to them, and tells what happened. Never raises for a worker's death."""

    @property
    def frames_bytes(self) -> int:
        """How much may lie decoded at a time."""
        ...

    def start(self, pool: Pool) -> int:
        """Ask for another worker; `Ready` or `Died` follows, at once or when there is room for it."""
        ...

    def stop(self, worker: int) -> None: ...

    def call(self, worker: int, call: Call) -> None: ...

    def count_videos(self, statuses: Mapping[str, int]) -> None:
        """Committed videos, for whoever scrapes metrics."""
        ...

    def wait(self, timeout_s: float) -> list[Event]:
        """What happened, as soon as anything has; nothing when nothing does within `timeout_s`."""
        ...

    def pools(self) -> Pools:
        """The bounds of both pools, by the nodes there are now."""
        ...


class Executor(Protocol):
    """Opens workers: a cluster, or this process."""

    def open(
        self, config: IndexConfig, setup: DescribeSetup, say: Callable[..., None]
    ) -> AbstractContextManager["Workers"]: ...


@dataclass
class _Worker:
    pool: Pool
    is_ready: bool = False
    in_hand: list[Call] = field(default_factory=list)
    idle_since: float = field(default_factory=time.monotonic)

    @property
    def n_clips(self) -> int:
        return sum(call.n_clips for call in self.in_hand)


class Workers:
    """Hands work to the workers of a host as they have room."""

    def __init__(self, host: Host, batch_size: int, frame_bytes: int, patience_s: float = 3600.0) -> None:
        """`frame_bytes`: of one decoded frame, for the model and for the encoder."""
        self._host, self._room, self._patience_s = host, batch_size + CLIPS_PER_ITEM, patience_s
        self._frame_bytes = frame_bytes
        self._workers: dict[int, _Worker] = {}
        self._waiting: dict[str, deque[Call]] = {what: deque() for what in ("probe", "decode", "describe")}
        self._trials: dict[str, tuple[deque[int], list[int]]] = {}  # item -> (clips to try, clips that killed nobody)
        self._attempts = Attempts()
        self._start_deaths: Counter[str] = Counter()
        self._done: Counter[Pool] = Counter()
        self._last_event = time.monotonic()
        self.questions: Questions | None = None
        self.pools = host.pools()
        self._staff()

    # What the run's story calls ---------------------------------------------------------------------------------

    @property
    def wants_more(self) -> bool:
        """Whether workers will soon have nothing to probe or decode: more videos should be taken up."""
        n_decoders = max(1, self._n("decode"))
        probing = len(self._waiting["probe"]) + sum(
            c.what == "probe" for w in self._workers.values() for c in w.in_hand
        )
        return probing < CALLS_A_DECODER * n_decoders and len(self._waiting["decode"]) < PROBES_AHEAD * n_decoders

    @property
    def is_idle(self) -> bool:
        """Whether nothing is handed in that has not come back."""
        return not any(self._waiting.values()) and not any(w.in_hand for w in self._workers.values())

    def probe(self, source: Source) -> None:
        self._waiting["probe"].append(Call("probe", source))

    def run(self, item: Item) -> None:
        """Questions on whole videos go first: they are all that their videos still wait for."""
        queue, call = self._waiting["decode"], Call("decode", item)
        (queue.appendleft if item.kind == "answer" else queue.append)(call)

    def results(self, timeout_s: float = 1.0) -> list[Probed | Receipt]:
        """What has come back, in any order; waits up to `timeout_s` for it. A JobError is the end of the run."""
        self._staff()
        self._assign()
        events = self._host.wait(timeout_s)
        now = time.monotonic()
        if events or self.is_idle:
            self._last_event = now
        elif now - self._last_event > self._patience_s:
            raise JobError(
                f"no worker finished anything for {self._patience_s:g} s: one hangs, or the cluster has no room for "
                "its pools; what is staged is kept; --patience sets how long to wait"
            )
        results = [result for event in events for result in self._heard(event)]
        self._assign()
        return results

    def count_videos(self, statuses: Mapping[str, int]) -> None:
        """Committed videos, for whoever scrapes metrics."""
        self._host.count_videos(statuses)

    def loads(self) -> Mapping[str, StageLoad]:
        """Each pool now, for whoever watches."""
        waiting = {"decode": len(self._waiting["decode"]) + len(self._waiting["probe"])}
        return {
            pool: StageLoad(
                sum(w.pool == pool and w.is_ready for w in self._workers.values()),
                sum(w.pool == pool and bool(w.in_hand) for w in self._workers.values()),
                waiting.get(pool, len(self._waiting["describe"])),
                self._done[pool],
            )
            for pool in POOLS
        }

    # Staff ------------------------------------------------------------------------------------------------------

    def _n(self, pool: Pool) -> int:
        return sum(w.pool == pool for w in self._workers.values())

    def _staff(self) -> None:
        """Workers up to each pool's minimum, and one more at a time, up to its maximum, while work waits for one."""
        self.pools = self._host.pools()
        for pool in POOLS:
            least, most = self.pools.bounds(pool)
            is_starting = any(w.pool == pool and not w.is_ready for w in self._workers.values())
            waits = any(self._waiting[what] for what in (("probe", "decode") if pool == "decode" else ("describe",)))
            while self._n(pool) < least or (self._n(pool) < most and waits and not is_starting):
                self._workers[self._host.start(pool)] = _Worker(pool)
                is_starting = True
            self._give_back(pool, least)

    def _give_back(self, pool: Pool, least: int) -> None:
        now = time.monotonic()
        idle = [
            i
            for i, w in self._workers.items()
            if w.pool == pool and w.is_ready and not w.in_hand and now - w.idle_since > IDLE_S
        ]
        for worker in idle[: max(0, self._n(pool) - least)]:
            del self._workers[worker]
            self._host.stop(worker)

    # Handing out ------------------------------------------------------------------------------------------------

    def _assign(self) -> None:
        while call := self._next_decode():
            worker = self._with_room("decode", call)
            if worker is None:
                break
            self._waiting[call.what].popleft()
            self._give(worker, call)
        for _ in range(len(self._waiting["describe"])):
            call = self._waiting["describe"].popleft()
            worker = self._with_room("describe", call)
            if worker is None:
                self._waiting["describe"].appendleft(call)
                break
            self._give(worker, call)

    def _next_decode(self) -> Call | None:
        """Probes first, they are short; items while there is room for their frames."""
        if self._waiting["probe"]:
            return self._waiting["probe"][0]
        if self._waiting["decode"] and self._has_room_for(self._waiting["decode"][0]):
            return self._waiting["decode"][0]
        return None

    def _has_room_for(self, call: Call) -> bool:
        """Whether the item's frames fit beside those that are decoded or being decoded; and describers are not far
        behind. A single item always fits: nothing would move otherwise.
        """
        held = [*self._waiting["describe"], *(c for w in self._workers.values() for c in w.in_hand if c.n_clips)]
        ahead = sum(c.n_clips for c in self._waiting["describe"])
        if not held:
            return True
        n_bytes = sum(c.n_bytes for c in held) + self._bytes_of(call)
        return n_bytes <= self._host.frames_bytes and ahead <= 2 * self._room * max(1, self._n("describe"))

    def _bytes_of(self, call: Call) -> int:
        """What an item's frames will take, by its plan."""
        assert isinstance(call.work, Item)
        return self._frame_bytes * sum(len(clip.targets_s) for clip in call.work.clips)

    def _with_room(self, pool: Pool, call: Call) -> int | None:
        """The worker of a pool with the least in hand, if it has room. A suspect goes where nothing else is."""
        alone = self._is_alone(call)
        best: tuple[int, int] | None = None
        for i, worker in self._workers.items():
            if worker.pool != pool or not worker.is_ready:
                continue
            if worker.in_hand and (alone or any(map(self._is_alone, worker.in_hand))):
                continue
            if pool == "decode":
                has_room, load = len(worker.in_hand) < CALLS_A_DECODER, len(worker.in_hand)
            else:
                load = worker.n_clips
                has_room = len(worker.in_hand) < 2 or load + call.n_clips <= self._room
            if has_room and (best is None or load < best[0]):
                best = load, i
        return None if best is None else best[1]

    def _is_alone(self, call: Call) -> bool:
        """Whether it may kill its worker, so that nothing else should be there."""
        return call.only is not None or self._attempts.is_suspect(call.name)

    def _give(self, worker: int, call: Call) -> None:
        if call.what == "decode":
            call.n_bytes = self._bytes_of(call)
        self._workers[worker].in_hand.append(call)
        self._attempts.begin(call.name, worker)
        self._host.call(worker, call)

    # What came back ---------------------------------------------------------------------------------------------

    def _heard(self, event: Event) -> list[Probed | Receipt]:
        if event.worker not in self._workers:  # given back, or dead already
            return []
        worker = self._workers[event.worker]
        if isinstance(event, Ready):
            worker.is_ready, self._start_deaths[worker.pool] = True, 0
            self.questions = self.questions or event.questions
            return []
        if isinstance(event, Died):
            return self._buried(event.worker)
        worker.in_hand.remove(event.call)
        worker.idle_since = time.monotonic()
        self._attempts.end(event.call.name, event.worker)
        self._done[worker.pool] += 1
        if isinstance(event, Decoded):
            return self._to_describe(Call("describe", event.call.work, event.frames, event.n_bytes))
        if isinstance(event, FramesLost):
            if event.call.is_trial:
                self._trial_of(event.call)[0].extendleft(event.call.only or ())
            self._waiting["decode"].appendleft(Call("decode", event.call.work))
            return []
        if event.call.is_trial:
            self._trial_of(event.call)[1].extend(event.call.only or ())
            return self._next_trial(event.call)
        return [event.value]

    def _buried(self, number: int) -> list[Probed | Receipt]:
        """A dead worker's work goes back to the front of its queue; what killed too often ends as a receipt."""
        worker = self._workers.pop(number)
        if not worker.is_ready:
            self._start_deaths[worker.pool] += 1
            if self._start_deaths[worker.pool] >= MAX_START_DEATHS:
                raise JobError(f"{MAX_START_DEATHS} {worker.pool} workers died one after the other as they started")
        self._attempts.died(number, one_at_a_time=worker.pool == "decode")
        ended: list[Probed | Receipt] = []
        for call in reversed(worker.in_hand):
            ended += self._again(call)
        return ended

    def _again(self, call: Call) -> list[Probed | Receipt]:
        if call.is_trial:  # that clip killed its worker, alone
            return self._next_trial(call) if self._attempts.deaths(call.name) else self._to_front(call)
        if self._attempts.deaths(call.name) < MAX_DEATHS:
            return self._to_front(call)
        if isinstance(call.work, Source):
            lost = Failure.of("probe", WorkerLost(f"{MAX_DEATHS} decode workers died on this video"))
            return [Probed(call.work, None, (), lost, 0.0)]
        if call.what == "decode" or call.only is not None or call.work.kind == "answer":
            return [receipt_of(call.work, failure=killed_twice(call.work, call.what))]
        clips = range(int(call.work.has_context), len(call.work.clips))
        self._trials[call.work.key] = deque(clips), []
        return self._next_trial(call)

    def _to_front(self, call: Call) -> list[Probed | Receipt]:
        self._waiting[call.what].appendleft(call)
        return []

    def _to_describe(self, call: Call) -> list[Probed | Receipt]:
        """An item whose clips were being tried when its frames were lost goes on where it was."""
        if isinstance(call.work, Item) and call.work.key in self._trials:
            return self._next_trial(call)
        self._waiting["describe"].append(call)
        return []

    def _trial_of(self, call: Call) -> tuple[deque[int], list[int]]:
        """The item's clips still to be tried, and those that killed nobody."""
        assert isinstance(call.work, Item)
        return self._trials[call.work.key]

    def _next_trial(self, call: Call) -> list[Probed | Receipt]:
        """The next clip alone, its rows thrown away; after the last, those that killed nobody, for good."""
        left, survived = self._trial_of(call)
        assert isinstance(call.work, Item)
        if not left and not survived:
            return [receipt_of(call.work, failure=killed_twice(call.work))]
        only, is_trial = ((left.popleft(),), True) if left else (tuple(survived), False)
        return self._to_front(Call("describe", call.work, call.frames, call.n_bytes, only, is_trial))
