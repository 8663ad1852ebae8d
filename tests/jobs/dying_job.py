"""jobs.index with one fault put in: `python -m tests.jobs.dying_job FAULT MARK ROOT... --output INDEX ...`.

The job is the real one. A fault strikes where its scenario says and nowhere else; MARK is a folder in which each blow
leaves a file, so that a fault strikes as often as it should, whatever process it is in.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

import pipeline.execution.on_ray
import pipeline.index.compaction
import pipeline.index.snapshot
import pipeline.run
from jobs.index import main
from pipeline.decoding.decoder import Decoder
from pipeline.execution.stages import Begin, DecodeStage, DescribeStage, ProbeStage
from tests.pipeline.decoding.tapped import tapped


def faulty(fault: str) -> tuple[str, ...]:
    """The decode child with a fault of its own (tests/pipeline/decoding/faulty_child.py)."""
    return (sys.executable, "-m", "tests.pipeline.decoding.faulty_child", fault)


CLIP_KILLS = "describe actor, twice, then at a clip"
DecodeBase, DescribeBase = DecodeStage, DescribeStage


def strikes(mark: str, times: int) -> bool:
    """Whether to strike now: true `times` times in all."""
    for i in range(times):
        try:
            Path(mark, str(i)).touch(exist_ok=False)
        except FileExistsError:
            continue
        return True
    return False


def kill_self_after(begin: Begin, mark: str, times: int, then_at: str | None = None) -> Begin:
    """Counts the work as begun, then kills this process: always at the same item, and then at its clip `then_at`."""

    def begun(name: str) -> int:
        attempt, first = begin(name), Path(mark, "item")
        with contextlib.suppress(FileExistsError), first.open("x") as file:
            file.write(name)
        item = first.read_text()
        if (name == item and strikes(mark, times)) or (name == f"{item}-{then_at}" and strikes(f"{mark}/clip", 1)):
            os.kill(os.getpid(), signal.SIGKILL)
        return attempt

    return begun


def in_workers(fault: str, mark: str) -> None:
    class KilledDecode(DecodeBase):
        def __init__(self, bounds: Any, model: Any, encoder: Any, begin: Begin) -> None:
            times = 1 if fault in ("decode worker", "each worker") else 2 if fault == "decode worker twice" else 0
            super().__init__(bounds, model, encoder, kill_self_after(begin, f"{mark}/decode", times))

        def __call__(self, row: pa.Table) -> pa.Table:
            if fault in ("decode child", "each worker") and strikes(f"{mark}/child", 1):
                os.kill(self._decoder.child_pid(), signal.SIGKILL)
            return super().__call__(row)

    class KilledDescribe(DescribeBase):
        def __init__(self, setup: Any, begin: Begin) -> None:
            times = {"describe actor": 1, "each worker": 1, "describe actor, twice": 2, CLIP_KILLS: 2}
            super().__init__(setup, begin)
            clip = "1" if fault == CLIP_KILLS else None
            self._unhurt, self._hurt = begin, kill_self_after(begin, f"{mark}/describe", times.get(fault, 0), clip)

        def __call__(self, row: pa.Table) -> pa.Table:
            self._begin = self._hurt if len(row["clips"][0]) == 2 or fault == "each worker" else self._unhurt
            return super().__call__(row)

    class HangingProbe(ProbeStage):
        def __init__(self, sampling: str, bounds: Any) -> None:
            super().__init__(sampling, bounds)
            self._decoder = Decoder(bounds, faulty("hang"))

    if fault == "decode child hangs":
        pipeline.execution.on_ray.ProbeStage = HangingProbe  # type: ignore[misc]  # a faulty double in its place
    pipeline.execution.on_ray.DecodeStage = KilledDecode  # type: ignore[misc]  # a faulty double in its place
    pipeline.execution.on_ray.DescribeStage = KilledDescribe  # type: ignore[misc]  # a faulty double in its place


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
    "driver, in compaction": (2, "replace _state/snapshot"),
}

if __name__ == "__main__":
    fault, mark, *argv = sys.argv[1:]
    for name in ("", "decode", "child", "describe", "describe/clip"):
        Path(mark, name).mkdir(exist_ok=True)
    if fault in DRIVER_FAULTS:
        in_driver(*DRIVER_FAULTS[fault], mark)
    else:
        in_workers(fault, mark)
    if fault == "driver, in compaction":
        pipeline.run.compact = partial(pipeline.index.compaction.compact, max_small_files=1)
    sys.exit(main(argv))
