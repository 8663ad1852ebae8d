"""What the builtin encoder's segments are worth on real footage it was never trained for: F1 of cuts, as it is.

python -m benchmarks.cuts [--videos ../shared/videos] [--encoder builtin] [--save]

Every file of CUTS.tsv is sampled 4 times a second; a cut is found when a segment starts within one step of a hard cut
listed there. Two thresholds: the encoder's own (from planted clips), and one calibrated on this footage without labels.
"""

import argparse
import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from benchmarks.machine import RESULTS, describe
from pipeline.describing.calibration import segment_threshold
from pipeline.models.checkpoints import ModelFiles, resolve_model, resolve_thresholds
from pipeline.models.encoder import Encoder
from pipeline.models.pixels import normalise

STEP_S = 0.25


@dataclass(frozen=True)
class Footage:
    name: str
    cuts_s: tuple[float, ...]
    times_s: npt.NDArray[np.float64]  # (n,)
    cosines: npt.NDArray[np.float64]  # (n - 1,) of each sample with the one before


def samples(path: Path, size: tuple[int, int], step_s: float) -> Iterator[tuple[float, npt.NDArray[np.uint8]]]:
    """The frame on screen at each multiple of `step_s` from the first frame on, (H, W, 3)."""
    with av.open(str(path), metadata_errors="ignore") as container:
        container.streams.video[0].thread_type = "AUTO"
        first, wanted, shown = None, 0, None
        for frame in container.decode(video=0):
            if frame.time is None:
                continue
            first = frame.time if first is None else first
            while shown is not None and frame.time - first > wanted * step_s:
                yield wanted * step_s, np.asarray(shown.to_image().resize(size, Image.Resampling.BICUBIC))
                wanted += 1
            shown = frame
        if shown is not None:
            yield wanted * step_s, np.asarray(shown.to_image().resize(size, Image.Resampling.BICUBIC))


def _watch(path: Path, cuts_s: tuple[float, ...], files: ModelFiles, encoder: Encoder) -> Footage:
    size = (files.identity.resize.width, files.identity.resize.height)
    times, frames = zip(*samples(path, size, STEP_S), strict=True)
    vectors = encoder.images(normalise(torch.from_numpy(np.stack(frames)), files.normalisation)).double().numpy()
    return Footage(path.name, cuts_s, np.array(times), (vectors[1:] * vectors[:-1]).sum(1))


def matches(found_s: npt.NDArray[np.float64], cuts_s: tuple[float, ...]) -> int:
    """How many cuts have a find of their own within one step (half a step of slack for the sampling grid)."""
    free = list(found_s)
    hits = 0
    for cut in cuts_s:
        near = [t for t in free if abs(t - cut) <= 1.5 * STEP_S]
        if near:
            free.remove(min(near, key=lambda t: abs(t - cut)))
            hits += 1
    return hits


def _score(footage: list[Footage], tau_s: float) -> tuple[float, int, int, int]:
    """(F1, hits, cuts found, cuts there)"""
    hits = found = there = 0
    for one in footage:
        times = one.times_s[1:][one.cosines < tau_s]
        hits += matches(times, one.cuts_s)
        found += len(times)
        there += len(one.cuts_s)
    return 2 * hits / max(1, found + there), hits, found, there


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, default=Path("../shared/videos"))
    parser.add_argument("--encoder", default="builtin")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/cuts.json")
    args = parser.parse_args()
    files = resolve_model(args.encoder, "encoder")
    encoder, footage = Encoder(files.path), []
    with (args.videos / "CUTS.tsv").open() as table:
        for row in csv.DictReader(table, delimiter="\t"):
            cuts = tuple(float(cut) for cut in row["hard_cuts_s"].split(",") if cut)
            try:
                footage.append(_watch(args.videos / row["set"] / row["file"], cuts, files, encoder))
            except (av.FFmpegError, ValueError) as error:
                print(f"{row['file']}: not read: {error}")
    own = resolve_thresholds(files).tau_s
    on_footage = segment_threshold(np.concatenate([one.cosines for one in footage]))
    report = {}
    for name, tau_s in (("own", own), ("calibrated", on_footage)):
        f1, hits, found, there = _score(footage, tau_s)
        print(f"tau_s {tau_s:.4f} ({name}): F1 {f1:.3f}, {hits} of {there} cuts, {found} found")
        for one in footage:
            times = one.times_s[1:][one.cosines < tau_s]
            print(f"  {one.name:40s} {matches(times, one.cuts_s)} of {len(one.cuts_s)} cuts, {len(times)} found")
        report[name] = {"tau_s": round(tau_s, 4), "f1": round(f1, 4), "hits": hits, "found": found, "cuts": there}
    result = {"encoder": args.encoder, "videos": len(footage), **report} | describe()
    if args.save:
        (RESULTS / "cuts.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
