"""Whether a GPU is kept fed: `python -m benchmarks.gpu_utilisation ../shared/videos/open [--seconds 1]`.

The whole job with one fake GPU that sleeps so long for each clip in place of a Video LLM (the encoder is `builtin`,
no captions are made), over the archive and two copies of it, in ten commits. Each sleep leaves its times, and each
loading of the models a line. The wall time from the first sleep to the last is held against the sum of the sleeps.
What starting takes (Ray, workers, imports, models) is told apart. Ends with one JSON line.
"""

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from benchmarks.machine import RESULTS, describe
from pipeline.config import IndexConfig
from pipeline.execution.executors import OnRay
from pipeline.execution.pools import ClusterOptions
from pipeline.execution.stages import DescribeStage, Stages, WorkerSetup
from pipeline.index.snapshot import Index
from pipeline.items.wire import item_from_row
from pipeline.ledger.committer import Pace
from pipeline.ledger.prepare import prepare
from pipeline.run import run_index

COMMITS = 10


def sleeping(seconds: float, marks: str) -> type[DescribeStage]:
    """The stage with a GPU that is busy for `seconds` with each clip and needs no core for it."""

    class Sleeping(DescribeStage):
        def __init__(self, setup: WorkerSetup) -> None:
            super().__init__(setup)
            self._gpu = threading.Lock()
            self._mark("loaded")

        def describe(self, row: pa.Table, only: Sequence[int] | None = None, is_trial: bool = False) -> pa.Table:
            n_clips = len(item_from_row(row).clips)
            with self._gpu:
                began = time.time()
                time.sleep(seconds * n_clips)
                self._mark(f"{began} {time.time()} {n_clips}")
            return super().describe(row, only, is_trial)

        def _mark(self, line: str) -> None:
            with Path(marks).open("a") as file:
                file.write(f"{line}\n")

    return Sleeping


def say(line: str, /, **facts: object) -> None:
    print(line, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--seconds", type=float, default=1.0, help="the GPU's time for one clip (default: 1)")
    parser.add_argument("--copies", type=int, default=2, help="of the archive, beside it (default: 2)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        archives = [args.archive]
        archives += [Path(shutil.copytree(args.archive, f"{folder}/copy-{i}")) for i in range(args.copies)]
        prepared = prepare(IndexConfig(tuple(map(str, archives)), f"{folder}/index", "builtin", caption_prompt=None))
        stages = Stages(describe=sleeping(args.seconds, f"{folder}/marks"))
        executor = OnRay(ClusterOptions(num_cpus=2, num_gpus=1), stages)
        pace = Pace(videos=max(1, prepared.listing.table.num_rows // COMMITS))
        started = time.time()
        report = run_index(prepared, executor, "benchmark", say, pace=pace)
        ended, lines = time.time(), Path(folder, "marks").read_text().splitlines()
        n_commits = Index.open(f"{folder}/index").snapshot().commit
    sleeps = [tuple(map(float, line.split())) for line in lines if line != "loaded"]
    first, last = min(began for began, _, _ in sleeps), max(end for _, end, _ in sleeps)
    gpu_s = sum(end - began for began, end, _ in sleeps)
    result = {
        "benchmark": "gpu_utilisation",
        "seconds_per_clip": args.seconds,
        "clips": int(sum(n for _, _, n in sleeps)),
        "wall_over_gpu": round((last - first) / gpu_s, 3),
        "models_loaded": lines.count("loaded"),
        "commits": n_commits,
        "to_first_clip_s": round(first - started, 1),
        "after_last_clip_s": round(ended - last, 1),
        "busy": {pool: round(share, 3) for pool, share in report.watch.busy().items()},
        **describe(),
    }
    (RESULTS / "gpu_utilisation.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
