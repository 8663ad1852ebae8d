"""jobs.index that stands still once, so that it can be hit: `python -m tests.jobs.waiting_job WHERE MARK ROOT... ...`.

WHERE is decode, describe or stage: the first worker that comes there (for stage: the first not beside the driver)
writes the ids of its node and process into the folder MARK, and waits to be killed. With "deaf" it is describe, and the
driver ignores SIGTERM.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

import jobs.index
import pipeline.execution.on_ray
from pipeline.execution.stages import DecodeStage, DescribeStage, StagingStage

WAIT_S = 600.0
DecodeBase, DescribeBase, StagingBase = DecodeStage, DescribeStage, StagingStage


def stand_still(mark: str, driver_node: str | None = None) -> None:
    """Once in all processes."""
    node = ray.get_runtime_context().get_node_id()
    if node == driver_node:
        return
    try:
        with Path(mark, "here").open("x") as file:
            file.write(f"{node} {os.getpid()}")
    except FileExistsError:
        return
    time.sleep(WAIT_S)


def in_workers(where: str, mark: str) -> None:
    class WaitingDecode(DecodeBase):
        def __call__(self, row: pa.Table) -> pa.Table:
            if where == "decode":
                stand_still(mark)
            return super().__call__(row)

    class WaitingDescribe(DescribeBase):
        def __call__(self, row: pa.Table) -> pa.Table:
            if where == "describe":
                stand_still(mark)
            return super().__call__(row)

    class WaitingStaging(StagingBase):
        def __call__(self, row: pa.Table) -> pa.Table:
            if where == "stage":
                stand_still(mark, Path(mark, "driver node").read_text())
            return super().__call__(row)

    class WorkersWithNode(pipeline.execution.on_ray.Workers):
        def run_items(self, items: Any) -> Any:
            Path(mark, "driver node").write_text(ray.get_runtime_context().get_node_id())
            return super().run_items(items)

    pipeline.execution.on_ray.DecodeStage = WaitingDecode  # type: ignore[misc]  # a waiting double in its place
    pipeline.execution.on_ray.DescribeStage = WaitingDescribe  # type: ignore[misc]  # a waiting double in its place
    pipeline.execution.on_ray.StagingStage = WaitingStaging  # type: ignore[misc]  # a waiting double in its place
    pipeline.execution.on_ray.Workers = WorkersWithNode  # type: ignore[misc]  # a waiting double in its place


if __name__ == "__main__":
    where, mark, *argv = sys.argv[1:]
    Path(mark).mkdir(parents=True, exist_ok=True)
    Path(mark, "driver").write_text(str(os.getpid()))
    if where == "deaf":
        jobs.index.stop_on_signals = lambda say: signal.signal(signal.SIGTERM, signal.SIG_IGN)  # type: ignore[assignment]  # a waiting double in its place
        in_workers("describe", mark)
    else:
        in_workers(where, mark)
    sys.exit(jobs.index.main(argv))
