"""jobs.index whose items take a while: `python -m tests.jobs.slow_job MARK ROOT ... --output INDEX ...`.

Each item leaves a line in the file MARK when it is described: the node it was described on, and its key.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import ray

import jobs.index
from pipeline.execution.executors import OnRay
from pipeline.execution.stages import DescribeStage, Stages

SECONDS_PER_ITEM = 5.0


def slow(mark: str) -> type[DescribeStage]:
    class Slow(DescribeStage):
        def describe(self, row: pa.Table, only: Sequence[int] | None = None, is_trial: bool = False) -> pa.Table:
            receipt = super().describe(row, only, is_trial)
            time.sleep(SECONDS_PER_ITEM)
            with Path(mark).open("a") as file:
                file.write(f"{ray.get_runtime_context().get_node_id()} {receipt['item_key'][0]}\n")
            return receipt

    return Slow


if __name__ == "__main__":
    mark, *argv = sys.argv[1:]
    cluster = jobs.index.cluster_of(jobs.index.parser().parse_args(argv))
    sys.exit(jobs.index.main(argv, OnRay(cluster, Stages(describe=slow(mark)))))
