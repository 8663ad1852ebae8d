"""jobs.index that stands still once, so that it can be hit: `python -m tests.jobs.waiting_job WHERE MARK ROOT... ...`.

WHERE is decode, describe or stage: the first worker that comes there
writes the ids of its node and process into the folder MARK, and waits to be killed. With "deaf" it is describe, and the
driver ignores SIGTERM.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import ray

import jobs.index
from pipeline.execution.executors import OnRay
from pipeline.execution.stages import DecodeStage, DescribeStage, Stages
from pipeline.items.item import Item

WAIT_S = 600.0


def stand_still(mark: str) -> None:
    """Once in all processes."""
    node = ray.get_runtime_context().get_node_id()
    try:
        with Path(mark, "here").open("x") as file:
            file.write(f"{node} {os.getpid()}")
    except FileExistsError:
        return
    time.sleep(WAIT_S)


def waiting_stages(where: str, mark: str) -> Stages:
    class WaitingDecode(DecodeStage):
        def decode(self, row: pa.Table) -> tuple[pa.Table | None, pa.Table | None]:
            if where == "decode":
                stand_still(mark)
            return super().decode(row)

    class WaitingDescribe(DescribeStage):
        def describe(self, row: pa.Table, only: Sequence[int] | None = None, is_trial: bool = False) -> pa.Table:
            if where == "describe":
                stand_still(mark)
            return super().describe(row, only, is_trial)

        def _stage(self, item: Item, data: bytes) -> None:
            if where == "stage":
                stand_still(mark)
            super()._stage(item, data)

    return Stages(WaitingDecode, WaitingDescribe)


if __name__ == "__main__":
    where, mark, *argv = sys.argv[1:]
    Path(mark).mkdir(parents=True, exist_ok=True)
    Path(mark, "driver").write_text(str(os.getpid()))
    if where == "deaf":
        jobs.index.stop_on_signals = lambda say: signal.signal(signal.SIGTERM, signal.SIG_IGN)  # type: ignore[assignment]  # a waiting double in its place
        where = "describe"
    cluster = jobs.index.cluster_of(jobs.index.parser().parse_args(argv))
    sys.exit(jobs.index.main(argv, OnRay(cluster, waiting_stages(where, mark))))
