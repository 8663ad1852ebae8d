"""CPU-seconds to get the sample of a video: our decoder (child included, warm) against decord and PyAV used plainly.

    python -m benchmarks.decode [--videos ../shared/videos/open] [--repeat 3] [--every 1] [--output FILE.json]

The sample is every=1s over the whole video, resized by Pillow to 384 x 384. "Plainly" is what one would write first,
one thread each: decord `get_batch` at round(k * fps); PyAV decoding everything and converting what is wanted; PyAV
seeking to each target and decoding up to it. Ours also probes, checks, times exactly, turns upright and makes
thumbnails; all of that is in its figure. A plain way counts where, by its own word, it gave frames near the targets.
Each figure is the least of the repeats, methods alternating within one run. Ends with one JSON line: ratio = sum of
ours / sum over files of the cheapest plain way.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import decord
import numpy as np

from pipeline.decoding.decoder import Decoder
from pipeline.decoding.resize import resize
from pipeline.decoding.sampling import Every, count_targets, plan_clips
from pipeline.errors import VideoError
from pipeline.types import ResizeRecipe

RECIPE = ResizeRecipe(384, 384)
CLIPS_PER_ITEM = 8
NEAR_S = 0.25


def plain_decord(path: str, every_s: float) -> list[float]:
    reader = decord.VideoReader(path, num_threads=1)
    fps, n = reader.get_avg_fps(), len(reader)
    indices = [min(round(k * every_s * fps), n - 1) for k in range(max(1, int(np.ceil(n / fps / every_s))))]
    for frame in reader.get_batch(indices).asnumpy():
        resize(frame, RECIPE)
    return [i / fps for i in indices]


def plain_pyav(path: str, every_s: float) -> list[float]:
    held, first, times = None, None, list[float]()
    with av.open(path, metadata_errors="ignore") as container:
        stream: Any = container.streams.best("video")
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            first = frame.time if first is None else first
            if held is not None and frame.time - first > len(times) * every_s:
                resize(held.to_ndarray(format="rgb24"), RECIPE)
                times.append(held.time - first)
            held = frame
    return times


def plain_pyav_seeking(path: str, every_s: float) -> list[float]:
    times = list[float]()
    with av.open(path, metadata_errors="ignore") as container:
        stream: Any = container.streams.best("video")
        stream.codec_context.thread_count = 1
        start = float((stream.start_time or 0) * stream.time_base)
        for k in range(max(1, int(np.ceil((container.duration or 0) / 1e6 / every_s)))):
            container.seek(int((k * every_s + start) / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                if frame.time - start >= k * every_s:
                    resize(frame.to_ndarray(format="rgb24"), RECIPE)
                    times.append(frame.time - start)
                    break
    return times


Plain = Callable[[str, float], list[float]]  # path, seconds between samples -> times of the frames it gave
PLAIN: dict[str, Plain] = {
    "decord": plain_decord,
    "pyav": plain_pyav,
    "pyav_seek": plain_pyav_seeking,
}


def cpu_s(pid: int) -> float:
    """CPU time of all threads of a process, in seconds, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def measure_plain(method: Plain, path: str, every_s: float, n_targets: int) -> float | None:
    """Seconds, or None where it failed or did not give the sample: a frame near each target, the last forgiven."""
    start = time.process_time()
    try:
        times = method(path, every_s)
    except (decord.DECORDError, av.error.FFmpegError, RuntimeError, UnicodeDecodeError):
        return None
    seconds = time.process_time() - start
    right = abs(len(times) - n_targets) <= 1 and all(abs(t - k * every_s) < NEAR_S for k, t in enumerate(times))
    return seconds if times and right else None


def measure_ours(decoder: Decoder, path: str, sampling: Every) -> tuple[float, str, int] | None:
    """Seconds of probe and decode in both processes, the decoder that ran, clips."""
    pid = decoder.child_pid()
    start = time.process_time() + cpu_s(pid)
    try:
        clips = plan_clips(decoder.probe(path, sampling), sampling)
        items = [clips[i : i + CLIPS_PER_ITEM] for i in range(0, len(clips), CLIPS_PER_ITEM)]
        decoded = [decoder.decode(path, item, RECIPE, None) for item in items]
    except VideoError:
        return None
    if decoder.child_pid() != pid:
        return None
    return time.process_time() + cpu_s(pid) - start, decoded[0].decoder, len(clips)


def measure(decoder: Decoder, path: str, sampling: Every, repeat: int) -> dict[str, object]:
    every_s, figures = float(sampling.interval_s), dict[str, list[float]]()
    ran, n_clips = "", 0
    n_targets = count_targets(decoder.probe(path, sampling).duration_s, sampling.interval_s)
    for _ in range(repeat):
        for name, method in PLAIN.items():
            seconds = measure_plain(method, path, every_s, n_targets)
            if seconds is not None:
                figures.setdefault(name, []).append(seconds)
        ours = measure_ours(decoder, path, sampling)
        if ours is not None:
            figures.setdefault("ours", []).append(ours[0])
            ran, n_clips = ours[1:]
    return {"file": Path(path).name, "decoder": ran, "clips": n_clips} | {k: min(v) for k, v in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = Path(__file__).resolve().parents[2] / "shared" / "videos" / "open"
    parser.add_argument("--videos", type=Path, default=beside, help="a folder of videos, or one")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--every", type=Fraction, default=Fraction(1), help="seconds between samples")
    parser.add_argument("--output", type=Path, help="write the JSON here as well")
    args = parser.parse_args()
    decord.logging.set_level(decord.logging.QUIET)
    av.logging.set_level(None)
    paths = sorted(args.videos.iterdir()) if args.videos.is_dir() else [args.videos]
    rows = []
    with Decoder() as decoder:
        for path in paths:
            rows.append(measure(decoder, str(path.resolve()), Every(args.every), args.repeat))
            print_row(rows[-1])
    report = summary(rows) | {"every_s": float(args.every), "machine": platform.machine()}
    report |= {"cpus": os.cpu_count(), "files": rows}
    if args.output:
        args.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({k: v for k, v in report.items() if k != "files"}))


def best_plain(row: dict[str, Any]) -> float:
    return min((float(row[name]) for name in PLAIN if name in row), default=float("inf"))


def print_row(row: dict[str, Any]) -> None:
    ours, best = float(row.get("ours", float("nan"))), best_plain(row)
    cells = " ".join(f"{name} {row[name]:7.3f}" if name in row else f"{name}       -" for name in ("ours", *PLAIN))
    over = "" if ours <= 1.2 * best + 0.020 else "  OVER"
    print(f"{row['file']!s:36} {row['decoder']!s:6} {row['clips']!s:>3} clips  {cells}  ratio {ours / best:5.2f}{over}")


def summary(rows: list[dict[str, Any]]) -> dict[str, object]:
    both = [(float(row["ours"]), best_plain(row)) for row in rows if "ours" in row]
    ours, best = (sum(column) for column in zip(*both, strict=True))
    clips = sum(int(row["clips"]) for row in rows)
    return {
        "benchmark": "decode",
        "cpu_s_per_clip": ours / clips,
        "ours_cpu_s": ours,
        "best_plain_cpu_s": best,
        "ratio": ours / best,
        "files_over_1.2x_plus_20ms": [str(row["file"]) for row in rows if _over(row)],
    }


def _over(row: dict[str, Any]) -> bool:
    return "ours" not in row or float(row["ours"]) > 1.2 * best_plain(row) + 0.020


if __name__ == "__main__":
    main()
