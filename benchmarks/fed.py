"""Whether a GPU is kept fed: `python -m benchmarks.fed ../shared/videos/open [--seconds 1]`.

The whole job with one fake GPU that sleeps so long for each clip in place of a Video LLM (the encoder is `builtin`, no
captions are made), against the wall time of that sleep alone. Start-up (Ray, workers, imports, models) is told apart:
`work` runs from when Ray stands to the last receipt, `all` is the whole job. Ends with one JSON line.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import pipeline.describe_stage
from benchmarks.machine import RESULTS, describe
from pipeline.config import IndexConfig
from pipeline.describe_stage import DescribeStage
from pipeline.items import item_from_row
from pipeline.pools import ClusterOptions
from pipeline.prepare import prepare
from pipeline.run import run_index


def sleeping(seconds: float) -> type[DescribeStage]:
    """The stage with a GPU that is busy for `seconds` with each clip and needs no core for it."""

    class Sleeping(DescribeStage):
        def __call__(self, row: pa.Table) -> pa.Table:
            time.sleep(seconds * len(item_from_row(row).clips))
            return super().__call__(row)

    return Sleeping


def say(line: str, /, **facts: object) -> None:
    print(line, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--seconds", type=float, default=1.0, help="the GPU's time for one clip (default: 1)")
    args = parser.parse_args()
    pipeline.describe_stage.DescribeStage = sleeping(args.seconds)  # type: ignore[misc]  # a class in place of a class
    with tempfile.TemporaryDirectory() as folder:
        config = IndexConfig((str(args.archive),), f"{folder}/index", "builtin", caption_prompt=None)
        started = time.monotonic()
        report = run_index(prepare(config), ClusterOptions(num_cpus=2, num_gpus=1), "benchmark", say)
        all_s = time.monotonic() - started
        n_clips = sum(_n_clips(Path(folder, "index")))
    gpu_s = args.seconds * n_clips
    result = {
        "benchmark": "fed",
        "clips": n_clips,
        "gpu_s": round(gpu_s, 1),
        "work_over_gpu_wall": round(report.watch.work_s / gpu_s, 3),
        "all_over_gpu_wall": round(all_s / gpu_s, 3),
        "work_s": round(report.watch.work_s, 1),
        "all_s": round(all_s, 1),
        "busy": {pool: round(share, 3) for pool, share in report.watch.busy().items()},
        **describe(),
    }
    print(report)
    (RESULTS / "fed.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return 0


def _n_clips(index: Path) -> list[int]:
    return [pq.read_metadata(path).num_rows for path in (index / "clips").glob("*.parquet")]


if __name__ == "__main__":
    sys.exit(main())
