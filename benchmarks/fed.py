"""Whether a GPU is kept fed: `python -m benchmarks.fed ../shared/videos/open [--seconds 1]`.

The whole job with one fake GPU that sleeps so long for each clip in place of a Video LLM (the encoder is `builtin`, no
captions are made), against the wall time of that sleep alone. Run over the archive, and over it and two copies: the
slope is what a warm pipeline takes; starting (Ray, workers, imports, models) is told apart. Ends with one JSON line.
"""

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import RESULTS, describe
from pipeline.config import IndexConfig
from pipeline.execution.executors import OnRay
from pipeline.execution.pools import ClusterOptions
from pipeline.execution.stages import DescribeStage, Stages, WorkerSetup
from pipeline.items.wire import item_from_row
from pipeline.ledger.prepare import prepare
from pipeline.run import run_index


def sleeping(seconds: float) -> type[DescribeStage]:
    """The stage with a GPU that is busy for `seconds` with each clip and needs no core for it."""

    class Sleeping(DescribeStage):
        def __init__(self, setup: WorkerSetup) -> None:
            super().__init__(setup)
            self._gpu = threading.Lock()

        def describe(self, row: pa.Table, only: Sequence[int] | None = None, is_trial: bool = False) -> pa.Table:
            with self._gpu:
                time.sleep(seconds * len(item_from_row(row).clips))
            return super().describe(row, only, is_trial)

    return Sleeping


def say(line: str, /, **facts: object) -> None:
    print(line, flush=True)


@dataclass(frozen=True)
class Night:
    """One run: clips it described, seconds of the GPU's sleep, wall seconds of work and of all, busy share a stage."""

    clips: int
    gpu_s: float
    work_s: float  # from when Ray stands to the last receipt
    all_s: float
    busy: dict[str, float]


def night(archives: list[Path], seconds: float) -> Night:
    with tempfile.TemporaryDirectory() as folder:
        config = IndexConfig(tuple(map(str, archives)), f"{folder}/index", "builtin", caption_prompt=None)
        started = time.monotonic()
        executor = OnRay(ClusterOptions(num_cpus=2, num_gpus=1), Stages(describe=sleeping(seconds)))
        report = run_index(prepare(config), executor, "benchmark", say)
        all_s = time.monotonic() - started
        n_clips = sum(_n_clips(Path(folder, "index")))
    return Night(n_clips, seconds * n_clips, report.watch.work_s, all_s, report.watch.busy())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--seconds", type=float, default=1.0, help="the GPU's time for one clip (default: 1)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copies = [Path(shutil.copytree(args.archive, f"{folder}/copy-{i}")) for i in range(2)]
        once, thrice = night([args.archive], args.seconds), night([args.archive, *copies], args.seconds)
    gpu_s = thrice.gpu_s - once.gpu_s
    result = {
        "benchmark": "fed",
        "seconds_a_clip": args.seconds,
        "warm_over_gpu_wall": round((thrice.work_s - once.work_s) / gpu_s, 3),
        "start_s": round(once.all_s - once.gpu_s * (thrice.work_s - once.work_s) / gpu_s, 1),
        "once": {name: value for name, value in asdict(once).items() if name != "busy"},
        "thrice": {name: value for name, value in asdict(thrice).items() if name != "busy"},
        "busy": {pool: round(share, 3) for pool, share in thrice.busy.items()},
        **describe(),
    }
    (RESULTS / "fed.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return 0


def _n_clips(index: Path) -> list[int]:
    return [pq.read_metadata(path).num_rows for path in (index / "clips").glob("*.parquet")]


if __name__ == "__main__":
    sys.exit(main())
