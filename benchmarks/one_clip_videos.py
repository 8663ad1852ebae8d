"""Captions of many one-clip videos through the whole job, against another checkout of it.

    python -m benchmarks.one_clip_videos /path/to/other/checkout [--rounds 2]

Both index the same rendered videos with `builtin`, two cores, by turns: few of them, then many. The slope is what a
caption costs once everything has started. `describe` is the CPU time of the worker that holds the models, which limits
the run: its inverse is captions per second at one core for it; `all` is that of all processes. CPU seconds, because
other work may use the machine too. Ends with one JSON line.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean

from benchmarks.machine import RESULTS, describe
from benchmarks.process_tree import ProcessTree

FEW, MANY, SECONDS = 60, 300, 6
ROOT = Path(__file__).resolve().parents[1]


def index(checkout: Path, archive: Path, output: Path) -> dict[str, float]:
    """CPU seconds of one run: of the worker that holds the models, and of all processes."""
    command = [sys.executable, "-m", "jobs.index", str(archive), "--output", str(output), "--model", "builtin"]
    env = os.environ | {"PYTHONPATH": str(checkout)}
    with ProcessTree() as tree:
        subprocess.run([*command, "--num-cpus", "2"], check=True, capture_output=True, cwd=checkout, env=env)
    workers = [s for name, s in tree.cpu_s_by_name().items() if "ray::" in name and "IDLE" not in name]
    return {"describe": max(workers), "all": tree.cpu_s}


def render(folder: Path, n: int) -> Path:
    sys.path.insert(0, str(ROOT))
    from tests.archive import render_video  # the tests' own renderer

    for i in range(n):
        render_video(folder / f"{i:04d}.mp4", SECONDS, seed=i)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="root of the other checkout")
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    ms: dict[str, dict[str, list[float]]] = {who: {"describe": [], "all": []} for who in ("other", "this")}
    with tempfile.TemporaryDirectory() as folder:
        few, many = (render(Path(folder, str(n)), n) for n in (FEW, MANY))
        for number in range(args.rounds):
            for who, checkout in (("other", args.other), ("this", ROOT)):
                place = Path(folder, f"{who}-{number}")
                once, more = index(checkout, few, place / "few"), index(checkout, many, place / "many")
                for part in once:
                    ms[who][part].append(1000 * (more[part] - once[part]) / (MANY - FEW))
                print(who, {part: round(values[-1], 1) for part, values in ms[who].items()}, flush=True)
    cost = {f"{part}_ms_per_caption_{who}": round(mean(v), 1) for who in ms for part, v in ms[who].items()}
    gain = {f"{part}_gain": round(mean(ms["other"][part]) / mean(ms["this"][part]), 2) for part in ("describe", "all")}
    result = {"benchmark": "one_clip_videos", **gain, **cost, "rounds": args.rounds, **describe()}
    (RESULTS / "one_clip_videos.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
