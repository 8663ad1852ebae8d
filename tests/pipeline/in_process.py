"""Real runs without Ray, and what they did: an executor of this process whose workers count."""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.config import DescribeSetup, IndexConfig
from pipeline.execution.in_process import InProcess
from pipeline.execution.stages import DecodeStage, DescribeStage, Stages, WorkerSetup
from pipeline.execution.workers import Workers
from pipeline.items.wire import item_from_row, source_from_row


@dataclass
class CountingExecutor:
    """As `InProcess`, and counts: each count is taken where the work is done."""

    did: Counter[str] = field(default_factory=Counter)  # runs of workers, probes, decodes, models
    opened: set[str] = field(default_factory=set)  # paths given to a decode child

    def open(
        self, config: IndexConfig, setup: DescribeSetup, say: Callable[..., None]
    ) -> AbstractContextManager[Workers]:
        did, opened = self.did, self.opened
        did["workers"] += 1

        class CountingDecode(DecodeStage):
            def probe(self, row: pa.Table) -> pa.Table:
                did["probes"] += 1
                opened.add(source_from_row(row).path.decode())
                return super().probe(row)

            def decode(self, row: pa.Table) -> tuple[pa.Table | None, pa.Table | None]:
                did["decodes"] += 1
                opened.add(item_from_row(row).source.path.decode())
                return super().decode(row)

        class CountingDescribe(DescribeStage):
            def __init__(self, setup: WorkerSetup) -> None:
                did["models"] += 1 + bool(setup.describe.recipe.texts)
                super().__init__(setup)

        return InProcess(Stages(CountingDecode, CountingDescribe)).open(config, setup, say)
