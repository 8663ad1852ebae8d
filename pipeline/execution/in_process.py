"""A run without Ray: one worker of each kind in this process, each call made when it is waited for."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.config import CLIPS_PER_ITEM, DescribeSetup, IndexConfig
from pipeline.execution.pools import Pools
from pipeline.execution.stages import DecodeStage, DescribeStage, Stages, WorkerSetup
from pipeline.execution.workers import Call, Decoded, Event, Finished, Pool, Ready, Workers
from pipeline.items.item import Item, Probed, Receipt
from pipeline.items.wire import (
    item_to_row,
    probed_from_record,
    receipt_from_record,
    source_to_row,
)


@dataclass(frozen=True)
class InProcess:
    """An executor of this process alone."""

    stages: Stages = field(default_factory=Stages)

    @contextmanager
    def open(self, config: IndexConfig, setup: DescribeSetup, say: Callable[..., None]) -> Iterator[Workers]:
        host = _Here(self.stages, WorkerSetup(config.sampling, config.bounds, config.output, setup))
        yield Workers(host, CLIPS_PER_ITEM, setup.frame_bytes)


class _Here:
    """The host of this process."""

    def __init__(self, stages: Stages, setup: WorkerSetup) -> None:
        self._stages, self._setup = stages, setup
        self._decode: DecodeStage | None = None
        self._describe: DescribeStage | None = None
        self._calls: deque[tuple[int, Call | None]] = deque()
        self._pools: list[Pool] = []

    @property
    def frames_bytes(self) -> int:
        return 1 << 30

    def pools(self) -> Pools:
        return Pools(decode=1, decode_cpus=1, describe=1, describe_cpus=1, describe_gpus=0)

    def start(self, pool: Pool) -> int:
        self._pools.append(pool)
        self._calls.append((len(self._pools) - 1, None))
        return len(self._pools) - 1

    def stop(self, worker: int) -> None:
        """It costs nothing to stay."""

    def count_videos(self, statuses: Mapping[str, int]) -> None:
        """Nobody scrapes this process."""

    def call(self, worker: int, call: Call) -> None:
        self._calls.append((worker, call))

    def wait(self, timeout_s: float) -> list[Event]:
        return [self._made(*self._calls.popleft())] if self._calls else []

    def _made(self, worker: int, call: Call | None) -> Event:
        if call is None:
            if self._pools[worker] == "decode":
                self._decode = self._stages.decode(self._setup)
                return Ready(worker)
            self._describe = self._stages.describe(self._setup)
            return Ready(worker, self._describe.questions())
        value: Probed | Receipt
        assert self._decode is not None
        if call.what == "describe":
            assert self._describe is not None
            value = receipt_from_record(_record(self._describe.describe(call.frames, call.only, call.is_trial)))
        elif isinstance(call.work, Item):
            frames, receipt = self._decode.decode(item_to_row(call.work))
            if frames is not None:
                return Decoded(worker, call, frames, frames.nbytes)
            assert receipt is not None
            value = receipt_from_record(_record(receipt))
        else:
            value = probed_from_record(_record(self._decode.probe(source_to_row(call.work))))
        return Finished(worker, call, value)


def _record(row: pa.Table) -> dict[str, object]:
    (record,) = row.to_pylist()
    return dict(record)
