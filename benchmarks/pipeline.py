"""The whole job against a plain loop over the same work: CPU seconds and peak memory.

    python -m benchmarks.pipeline ../shared/videos/open [--rounds 3]

The loop calls the same stages one after the other in this process: no Ray, no commit. What a warm Ray
costs is the slope: CPU seconds of a run over the archive and six copies of it, minus those of a run over the archive
alone, against six times the loop: starting varies by seconds, which six copies make small. A machine's own speed varies
by a tenth within minutes, so loops and jobs take turns (a loop before and after the jobs of each round), and the ratio
is that of sums over all rounds; each round's own stands beside it. What starting costs (Ray, worker processes, imports,
loading the models) is reported too. `builtin` throughout; CPU seconds are those of all processes. Ends with one JSON
line.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch

from benchmarks.machine import describe
from benchmarks.process_tree import ProcessTree
from pipeline.config import CLIPS_PER_ITEM, DescribeSetup, IndexConfig, Recipe
from pipeline.execution.stages import DecodeStage, DescribeStage, WorkerSetup
from pipeline.index.snapshot import Index
from pipeline.items.item import cut_into_items
from pipeline.items.wire import item_to_row, probed_from_record, source_to_row
from pipeline.ledger.prepare import Prepared, prepare
from pipeline.types import Source

COPIES = 6
QUESTION = "What is happening?"
MAX_NEW_TOKENS = 32


def plain_loop(prepared: Prepared) -> None:
    """probe, decode, embed and describe every video, one after the other, in this process and its decode child."""
    config, output = prepared.config, prepared.config.output
    Index.create(output)
    model, encoder = prepared.model.identity, prepared.encoder.identity
    recipe = Recipe.of(config, model, encoder, prepared.thresholds, {})
    setup = DescribeSetup(
        model=model,
        encoder=encoder,
        thresholds=prepared.thresholds,
        recipe=recipe,
        prune=config.prune,
        p=config.p,
        max_new_tokens=config.max_new_tokens,
        keep_frames=True,
        device="cpu",
        run_id="loop",
    )
    workers = WorkerSetup(config.sampling, config.bounds, output, setup)
    decode, describe = DecodeStage(workers), DescribeStage(workers)
    for row in prepared.listing.table.select(["video_id", "uri", "path", "version"]).to_pylist():
        probed = probed_from_record(decode.probe(source_to_row(Source(**row))).to_pylist()[0])
        for item in cut_into_items(probed, recipe.wanted, recipe.fingerprints, CLIPS_PER_ITEM):
            frames, _ = decode.decode(item_to_row(item))
            if frames is not None:
                describe.describe(frames)


def job(archives: Sequence[Path], output: Path) -> ProcessTree:
    """One run of the command into a fresh index, measured over all its processes."""
    flags = ["--model", "builtin", "--question", QUESTION, "--max-new-tokens", str(MAX_NEW_TOKENS), "--num-cpus", "2"]
    command = [sys.executable, "-m", "jobs.index", *map(str, archives), "--output", str(output), *flags]
    with ProcessTree() as tree:
        subprocess.run(command, check=True, capture_output=True)
    return tree


def _config(archives: Sequence[Path], output: Path) -> IndexConfig:
    return IndexConfig(
        tuple(map(str, archives)), str(output), "builtin", questions=(QUESTION,), max_new_tokens=MAX_NEW_TOKENS
    )


@dataclass(frozen=True)
class Round:
    """A loop, a job over the archive, one over it and its copies, a loop again."""

    loops: tuple[ProcessTree, ProcessTree]
    once: ProcessTree
    all_of_them: ProcessTree

    @property
    def loop_cpu_s(self) -> float:
        return sum(loop.cpu_s for loop in self.loops) / 2

    @property
    def job_cpu_s(self) -> float:
        """Of one archive, once everything has started."""
        return (self.all_of_them.cpu_s - self.once.cpu_s) / COPIES

    def job_cpu_s_by_process(self) -> dict[str, float]:
        first, last = self.once.cpu_s_by_name(), self.all_of_them.cpu_s_by_name()
        return {name: (cpu_s - first.get(name, 0.0)) / COPIES for name, cpu_s in last.items()}


def run_round(archive: Path, copies: Sequence[Path], work: Path) -> Round:
    prepared = prepare(_config([archive], work / "loop"))
    before = loop(prepared)
    once, all_of_them = job([archive], work / "once"), job([archive, *copies], work / "all")
    return Round((before, loop(prepared)), once, all_of_them)


def loop(prepared: Prepared) -> ProcessTree:
    with ProcessTree() as tree:
        plain_loop(prepared)
    return tree


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # as Ray gives a describe worker of one core
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        copies = [Path(shutil.copytree(args.archive, f"{folder}/copy-{i}")) for i in range(COPIES)]
        plain_loop(prepare(_config([args.archive], Path(folder, "warm"))))  # warms file cache and imports
        rounds = [run_round(args.archive, copies, Path(folder, f"round-{i}")) for i in range(args.rounds)]
    loop_cpu_s, slope = (mean(getattr(r, name) for r in rounds) for name in ("loop_cpu_s", "job_cpu_s"))
    spent = [r.job_cpu_s_by_process() for r in rounds]
    by_process = {name: round(mean(s.get(name, 0.0) for s in spent), 2) for name in spent[0]}
    result = {
        "benchmark": "pipeline",
        "job_over_loop_cpu": round(slope / loop_cpu_s, 3),
        "job_over_loop_cpu_by_round": [round(r.job_cpu_s / r.loop_cpu_s, 3) for r in rounds],
        "loop_cpu_s": round(loop_cpu_s, 2),
        "job_cpu_s_an_archive": round(slope, 2),
        "job_cpu_s_an_archive_by_process": {
            n: s for n, s in sorted(by_process.items(), key=lambda x: -x[1]) if s >= 0.1
        },
        "start_cpu_s": round(mean(r.once.cpu_s for r in rounds) - slope, 2),
        "peak_mb_all_processes": round(max(r.all_of_them.peak_mb for r in rounds)),
        "peak_mb_largest_worker": round(max(r.all_of_them.peak_worker_mb for r in rounds)),
        **describe(),
    }
    for name, value in result.items():
        print(f"{name:<24} {value}")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
