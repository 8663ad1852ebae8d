"""jobs.index with one fault put in: `python -m tests.jobs.dying_job FAULT MARK ROOT... --output INDEX ...`.

The job is the real one. A fault strikes where its scenario says and nowhere else; MARK is a folder in which each blow
leaves a file, so that a fault strikes as often as it should, whatever process it is in.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

import pipeline.index.compaction
import pipeline.index.snapshot
import pipeline.run
from jobs.index import cluster_of, main
from jobs.index import parser as index_parser
from pipeline.decoding.decoder import Decoder
from pipeline.execution.executors import OnRay
from pipeline.execution.stages import DecodeStage, DescribeStage, Stages, WorkerSetup
from pipeline.items.wire import item_from_row
from pipeline.ledger.committer import Pace
from tests.pipeline.decoding.tapped import tapped


def faulty(fault: str) -> tuple[str, ...]:
    """The decode child with a fault of its own (tests/pipeline/decoding/faulty_child.py)."""
    return (sys.executable, "-m", "tests.pipeline.decoding.faulty_child", fault)


WHOLE_KILLS = "describe actor, by the whole item"
CLIP_KILLS = "describe actor, by one clip"


def strikes(mark: str, times: int) -> bool:
    """Whether to strike now: true `times` times in all."""
    for i in range(times):
        try:
            Path(mark, str(i)).touch(exist_ok=False)
        except FileExistsError:
            continue
        return True
    return False


def kill_at(item: str, mark: str, times: int) -> None:
    """Kills this process `times` times in all, always at the same item: the first that comes here."""
    first = Path(mark, "item")
    with contextlib.suppress(FileExistsError), first.open("x") as file:
        file.write(item)
    if item == first.read_text() and strikes(mark, times):
        os.kill(os.getpid(), signal.SIGKILL)


def faulty_stages(fault: str, mark: str) -> Stages:
    class KilledDecode(DecodeStage):
        def __init__(self, setup: WorkerSetup) -> None:
            super().__init__(setup)
            if fault == "decode child hangs":
                self._decoder = Decoder(setup.bounds, faulty("hang"))

        def decode(self, row: pa.Table) -> tuple[pa.Table | None, pa.Table | None]:
            times = 1 if fault in ("decode worker", "each worker") else 2 if fault == "decode worker twice" else 0
            kill_at(item_from_row(row).key, f"{mark}/decode", times)
            if fault in ("decode child", "each worker") and strikes(f"{mark}/child", 1):
                os.kill(self._decoder.child_pid(), signal.SIGKILL)
            return super().decode(row)

    class KilledDescribe(DescribeStage):
        """Its victim is the item of two clips; neighbours in the same worker die with it and are not blamed."""

        def describe(self, row: pa.Table, only: Sequence[int] | None = None, is_trial: bool = False) -> pa.Table:
            item = item_from_row(row)
            if len(item.clips) == 2 or fault == "each worker":
                if fault == CLIP_KILLS and (only is None or 1 in only):
                    Path(mark, "describe", f"blow-{time.monotonic_ns()}").touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                self._strike(item.key, only)
            return super().describe(row, only, is_trial)

        def _strike(self, key: str, only: Sequence[int] | None) -> None:
            if only is None:
                times = {"describe actor": 1, "each worker": 1, WHOLE_KILLS: 99}.get(fault, 0)
                kill_at(key, f"{mark}/describe", times)

    return Stages(KilledDecode, KilledDescribe)


def in_driver(nth: int, operation: str, mark: str) -> None:
    """Kill the driver before the storage operation that starts with these words, at its nth time."""
    seen = [0]

    def at_point(name: str) -> None:
        seen[0] += name.startswith(operation)
        if name.startswith(operation) and seen[0] == nth:
            Path(mark, "0").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    pipeline.index.snapshot.open_storage = partial(_tapped, at_point)  # type: ignore[assignment]  # a faulty double in its place


def _tapped(at_point: Callable[[str], None], url: str) -> Any:
    return tapped(url, at_point)


DRIVER_FAULTS = {
    "driver, before its commit opens": (1, "create _state/commits"),
    "driver, in the middle of its commit": (1, "write clips/"),
    "driver, before readers see the commit": (1, "replace _state/snapshot"),
    "driver, before the commit is closed": (1, "delete _state/staging"),
    "driver, between two commits of a stream": (2, "create _state/commits"),
    "driver, in compaction": (2, "replace _state/snapshot"),
}

if __name__ == "__main__":
    fault, mark, *argv = sys.argv[1:]
    for name in ("", "decode", "child", "describe"):
        Path(mark, name).mkdir(exist_ok=True)
    pace = Pace(videos=1) if "two commits" in fault else None
    if fault in DRIVER_FAULTS:
        in_driver(*DRIVER_FAULTS[fault], mark)
    if fault == "driver, in compaction":
        pipeline.run.compact = partial(pipeline.index.compaction.compact, max_small_files=1)
    args = index_parser().parse_args(argv)
    sys.exit(main(argv, OnRay(cluster_of(args), faulty_stages(fault, mark)), pace))
