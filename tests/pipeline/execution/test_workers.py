"""Handing out work, against a host on a simulated clock whose workers die, come late, leave and lose frames."""

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import CLIPS_PER_ITEM
from pipeline.errors import JobError
from pipeline.execution import workers as module
from pipeline.execution.pools import Pools
from pipeline.execution.stages import killed_twice, receipt_of
from pipeline.execution.workers import Call, Decoded, Died, Event, Finished, FramesLost, Pool, Ready, Workers
from pipeline.items.item import Item, Probed, Receipt
from pipeline.types import EMBED, ClipPlan, ItemKind, Source

POOLS = Pools(decode=2, decode_cpus=1, describe=2, describe_cpus=1, describe_gpus=1)


def an_item(name: str, n_clips: int = 1, kind: ItemKind = "index") -> Item:
    clips = tuple(ClipPlan(k, float(k), k + 1.0, (float(k),)) for k in range(n_clips))
    return Item(Source(name, f"file:///{name}", name.encode(), "1-1"), kind, 0, 1, clips, (EMBED,), {EMBED: "e"})


@dataclass
class Simulated:
    """A host whose calls take seconds of its own clock. `kills(call)`: whether a call kills its worker."""

    bounds: Pools = POOLS
    took: Callable[[Call], float] = lambda call: 1.0
    kills: Callable[[Call], bool] = lambda call: False
    loses_frames: Callable[[Call], bool] = lambda call: False
    start_s: float = 0.0
    frames_bytes: int = 1 << 30
    n_bytes: int = 1
    now: float = 0.0
    starts: Counter[str] = field(default_factory=Counter)
    blamed: Counter[str] = field(default_factory=Counter)  # describe calls begun, by item
    most_frames: int = 0
    busy_s: Counter[int] = field(default_factory=Counter)
    _free_at: dict[int, float] = field(default_factory=dict)
    _pool: list[Pool] = field(default_factory=list)
    _dead: set[int] = field(default_factory=set)
    _events: list[tuple[float, int, Event]] = field(default_factory=list)
    _order: Any = field(default_factory=itertools.count)
    _frames: int = 0

    def pools(self) -> Pools:
        return self.bounds

    def count_videos(self, statuses: Mapping[str, int]) -> None: ...

    def start(self, pool: Pool) -> int:
        worker = len(self._pool)
        self._pool.append(pool)
        self.starts[pool] += 1
        self._free_at[worker] = self.now + self.start_s
        self._put(self.now + self.start_s, Ready(worker))
        return worker

    def stop(self, worker: int) -> None:
        self._dead.add(worker)

    def leave(self, worker: int) -> None:
        """Its node goes."""
        self._put(self.now, Died(worker))

    def call(self, worker: int, call: Call) -> None:
        assert worker not in self._dead
        begins = max(self.now, self._free_at[worker])
        ends = self._free_at[worker] = begins + self.took(call)
        self.busy_s[worker] += self.took(call)
        if call.what == "describe":
            self.blamed[call.name] += 1
        if self.kills(call):
            self._put(ends, Died(worker))
        elif call.what == "describe" and self.loses_frames(call):
            self._frames -= self.n_bytes
            self._put(ends, FramesLost(worker, call))
        elif call.what == "decode":
            self._frames += self.n_bytes
            self.most_frames = max(self.most_frames, self._frames)
            self._put(ends, Decoded(worker, call, "frames", self.n_bytes))
        elif isinstance(call.work, Source):
            self._put(ends, Finished(worker, call, Probed(call.work, None, (), None, 0.0)))
        else:
            n_clips = len(call.only) if call.only is not None else len(call.work.clips)
            failure = None if call.only is None else killed_twice(call.work)
            self._put(ends, Finished(worker, call, receipt_of(call.work, n_clips=n_clips, failure=failure)))

    def wait(self, timeout_s: float) -> list[Event]:
        while self._events:
            at, _, event = heapq.heappop(self._events)
            self.now = max(self.now, at)
            if event.worker in self._dead:
                continue
            if isinstance(event, Died):
                self._dead.add(event.worker)
            elif isinstance(event, Finished) and event.call.what == "describe" and not event.call.is_trial:
                self._frames -= self.n_bytes
            return [event]
        self.now += timeout_s
        return []

    def _put(self, at: float, event: Event) -> None:
        heapq.heappush(self._events, (at, next(self._order), event))


def all_of(workers: Workers, items: list[Item], host: Simulated | None = None) -> dict[str, Receipt]:
    for item in items:
        workers.run(item)
    receipts: dict[str, Receipt] = {}
    for _ in range(10_000):
        if workers.is_idle:
            break
        for result in workers.results():
            assert isinstance(result, Receipt)
            assert result.video_id not in receipts, "one item, one receipt"
            receipts[result.video_id] = result
    return receipts


@settings(deadline=None)
@given(st.lists(st.integers(1, CLIPS_PER_ITEM), min_size=1, max_size=30), st.integers(1, 8), st.integers(0, 2**16))
def test_every_item_has_one_receipt_whoever_dies(sizes: list[int], batch_size: int, seed: int) -> None:
    """Items that kill as a whole, and clips that kill alone; workers whose node goes; frames that are lost."""
    names = [f"v{i}" for i in range(len(sizes))]
    poison = {name for i, name in enumerate(names) if (seed + 7 * i) % 11 == 0}
    clip_killer = {name for i, name in enumerate(names) if (seed + 5 * i) % 13 == 0}
    lost_once = {name for i, name in enumerate(names) if (seed + 3 * i) % 7 == 0}

    def kills(call: Call) -> bool:
        if call.what != "describe" or not isinstance(call.work, Item):
            return False
        name = call.work.source.video_id
        return (name in poison and call.only is None) or (name in clip_killer and (call.only is None or 0 in call.only))

    def loses(call: Call) -> bool:
        name = call.work.source.video_id if isinstance(call.work, Item) else ""
        if name in lost_once:
            lost_once.discard(name)
            return True
        return False

    host = Simulated(kills=kills, loses_frames=loses)
    items = [an_item(name, n) for name, n in zip(names, sizes, strict=True)]
    receipts = all_of(Workers(host, batch_size, 100), items)
    assert receipts.keys() == set(names)
    for name, n in zip(names, sizes, strict=True):
        receipt = receipts[name]
        if name in clip_killer:
            assert (receipt.n_clips, receipt.failure and receipt.failure.error_class) == (n - 1, "WorkerLost")
        elif name in poison:
            assert (receipt.n_clips, receipt.failure and receipt.failure.error_class) == (n, "WorkerLost")
        else:
            assert (receipt.n_clips, receipt.failure) == (n, None), "only the poison one pays"


def test_of_three_videos_in_hand_only_the_poison_one_pays() -> None:
    host = Simulated(
        replace(POOLS, describe=1),
        kills=lambda call: call.what == "describe" and call.only is None and call.work == poison,
        took=lambda call: 10.0 if call.what == "describe" else 0.1,
    )
    poison = an_item("b", 2)
    items = [an_item("a", 2), poison, an_item("c", 2)]
    receipts = all_of(Workers(host, 16, 100), items)
    assert {name: (r.n_clips, r.failure is None) for name, r in receipts.items()} == {
        "a": (2, True),
        "b": (2, False),
        "c": (2, True),
    }
    assert host.blamed["describe-" + items[0].key] <= 2, "a neighbour is done again once, and not clip by clip"


def test_a_video_whose_decoder_dies_twice_is_a_failure_of_that_video() -> None:
    host = Simulated(
        kills=lambda call: (
            call.what != "describe" and "bad" in str(call.work.source if isinstance(call.work, Item) else call.work)
        )
    )
    workers = Workers(host, 8, 100)
    workers.probe(an_item("bad probe").source)
    results = []
    while not workers.is_idle:
        results += workers.results()
    (probed,) = results
    assert isinstance(probed, Probed)
    assert probed.failure is not None
    assert probed.failure.transient
    receipts = all_of(workers, [an_item("bad"), an_item("good")])
    assert (receipts["bad"].failure and receipts["bad"].failure.stage, receipts["good"].failure) == ("decode", None)


def test_frames_in_flight_are_bounded_by_bytes_and_never_stand_still() -> None:
    host = Simulated(frames_bytes=250, n_bytes=100, took=lambda call: 5.0 if call.what == "describe" else 0.1)
    assert len(all_of(Workers(host, 32, 100), [an_item(f"v{i}") for i in range(40)])) == 40
    assert host.most_frames <= 250
    tight = Simulated(frames_bytes=1, n_bytes=100)
    assert len(all_of(Workers(tight, 32, 100), [an_item(f"v{i}") for i in range(10)])) == 10


def test_eight_gpus_do_eight_times_the_work_of_one() -> None:
    """On a simulated clock, a second for each clip models that load for twenty: 0.9 of linear once warm."""

    def wall_s(gpus: int) -> float:
        pools = replace(POOLS, decode=2 * gpus, describe=gpus)
        host = Simulated(pools, took=lambda call: 1.0 * call.n_clips if call.what == "describe" else 0.2, start_s=20)
        assert len(all_of(Workers(host, 8, 100), [an_item(f"v{i}", 1 + i % 8) for i in range(400)])) == 400
        assert host.starts["describe"] == gpus, "models are loaded once for each worker"
        return host.now - host.start_s

    assert wall_s(1) / wall_s(8) >= 0.9 * 8


def test_a_pool_grows_with_the_work_and_with_the_nodes() -> None:
    host = Simulated(replace(POOLS, describe=1, describe_most=3), took=lambda call: 4.0, start_s=1)
    workers = Workers(host, 1, 100)
    assert len(all_of(workers, [an_item(f"v{i}", 8) for i in range(40)])) == 40
    assert host.starts["describe"] == 3
    joined = Simulated(replace(POOLS, describe=1))
    workers = Workers(joined, 1, 100)
    all_of(workers, [an_item(f"v{i}", 8) for i in range(4)])
    assert joined.starts["describe"] == 1
    joined.bounds = POOLS  # a second node has come
    all_of(workers, [an_item(f"w{i}", 8) for i in range(20)])
    assert joined.starts["describe"] == 2
    second = max(i for i, pool in enumerate(joined._pool) if pool == "describe")
    assert joined.busy_s[second] > 5, "the second node is used"


def test_a_worker_that_leaves_costs_no_row() -> None:
    host = Simulated(took=lambda call: 3.0)
    workers = Workers(host, 4, 100)
    for i in range(20):
        workers.run(an_item(f"v{i}", 2))
    results = []
    for step in range(10_000):
        if workers.is_idle:
            break
        if step == 12:
            for worker, pool in enumerate(host._pool):
                if pool == "describe":
                    host.leave(worker)
        results += workers.results()
    assert sorted(r.video_id for r in results if isinstance(r, Receipt)) == sorted(f"v{i}" for i in range(20))
    assert all(isinstance(r, Receipt) and r.failure is None for r in results)


def test_an_idle_worker_above_the_least_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Simulated(replace(POOLS, describe=1, describe_most=3), took=lambda call: 4.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: host.now)
    workers = Workers(host, 1, 100)
    all_of(workers, [an_item(f"v{i}", 8) for i in range(30)])
    assert workers.loads()["describe"].workers == 3
    for _ in range(100):
        workers.results()
    assert workers.loads()["describe"].workers == 1


def test_a_run_that_stands_still_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Simulated(start_s=1e9)
    monkeypatch.setattr(module.time, "monotonic", lambda: host.now)
    host.wait = lambda timeout_s: setattr(host, "now", host.now + timeout_s) or []  # type: ignore[assignment,func-returns-value,method-assign]  # nothing ever happens
    workers = Workers(host, 8, 100, patience_s=30)
    with pytest.raises(JobError, match="no worker finished anything for 30 s"):
        all_of(workers, [an_item("v")])
    assert host.now < 40


def test_workers_that_die_as_they_start_end_the_run() -> None:
    host = Simulated()
    host.start = lambda pool: (
        (host._pool.append(pool), host._put(host.now, Died(len(host._pool) - 1)))[0] or len(host._pool) - 1
    )  # type: ignore[method-assign,assignment,func-returns-value]  # a host without luck
    workers = Workers(host, 8, 100)
    with pytest.raises(JobError, match="as they started"):
        all_of(workers, [an_item("v")])
