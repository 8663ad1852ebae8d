"""Memory of the decode child on a two-hour 1080p file: `python -m benchmarks.long_video [--hours 2] [--output FILE]`.

The file is made here: ten seconds of 1920 x 1080 H.264 at 25 frames a second (moving noise and squares, B-frames),
whose packets are repeated with later times until the length is reached; so it is cheap to make, and a real file of that
many frames to read. The child is asked as the pipeline asks it: a probe, then every item. Peak resident size is the
kernel's own figure (VmHWM) of the child, libraries included. Ends with one JSON line.
"""

import argparse
import json
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks import machine
from benchmarks.decode import CLIPS_PER_ITEM, RECIPE, cpu_s
from pipeline.decoding.decoder import Decoder
from pipeline.decoding.sampling import parse_sampling, plan_clips
from pipeline.types import Bounds

FPS, GOP = 25, 250
SAMPLINGS = ("uniform=32", "every=60s", "every=1s")
ITEMS = 4  # of a sampling that gives many items: the first ones


def ten_seconds(path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 64, (1080, 1920, 3), np.uint8)
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "g": str(GOP), "bf": "2", "keyint_min": str(GOP), "crf": "30"}
        stream: Any = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        for i in range(GOP):
            picture = np.roll(noise, 4 * i, axis=1)
            picture[200:500, 5 * i : 5 * i + 300] = 200
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def repeated(short: Path, long: Path, seconds: int) -> int:
    """The packets of `short` again and again. Returns the number of frames."""
    n = 0
    with av.open(str(short)) as source, av.open(str(long), "w") as target:
        packets: list[Any] = [packet for packet in source.demux(source.streams.video[0]) if packet.size]
        stream = target.add_stream_from_template(source.streams.video[0])
        time_base = packets[0].time_base
        step = int(Fraction(GOP, FPS) / time_base)
        times = [(packet.pts, packet.dts) for packet in packets]
        for round_ in range(seconds * FPS // GOP):
            for packet, (pts, dts) in zip(packets, times, strict=True):
                packet.stream, packet.pts, packet.dts = stream, pts + round_ * step, dts + round_ * step
                packet.time_base = time_base
                target.mux(packet)
                n += 1
    return n


def measure(path: Path, sampling_text: str) -> dict[str, Any]:
    sampling = parse_sampling(sampling_text)
    with Decoder(Bounds()) as decoder:
        pid, started = decoder.child_pid(), time.perf_counter()
        cpu = cpu_s(pid)
        probe = decoder.probe(str(path), sampling)
        clips = plan_clips(probe, sampling)
        items = [clips[i : i + CLIPS_PER_ITEM] for i in range(0, len(clips), CLIPS_PER_ITEM)][:ITEMS]
        decoded = [decoder.decode(str(path), item, RECIPE, None) for item in items]
        assert decoder.child_pid() == pid, "the child was replaced"
        (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
        return {
            "duration_s": probe.duration_s,
            "size": f"{probe.width}x{probe.height} {probe.codec}",
            "clips_planned": len(clips),
            "items_decoded": len(items),
            "frames": sum(len(clip.pts_s) for part in decoded for clip in part.clips),
            "coverage": min(part.coverage for part in decoded),
            "child_peak_bytes": int(line.split()[1]) * 1024,
            "child_cpu_s": round(cpu_s(pid) - cpu, 2),
            "wall_s": round(time.perf_counter() - started, 2),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--output", type=Path, help="write the JSON here as well")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ten_seconds(Path(folder, "short.mp4"))
        n_frames = repeated(Path(folder, "short.mp4"), Path(folder, "long.mp4"), int(args.hours * 3600))
        report: dict[str, Any] = {"benchmark": "long_video", "frames_in_file": n_frames}
        report["file_bytes"] = Path(folder, "long.mp4").stat().st_size
        for sampling in SAMPLINGS:
            report[sampling] = measure(Path(folder, "long.mp4"), sampling)
            print(sampling, report[sampling], flush=True)
    report["child_peak_bytes"] = max(report[sampling]["child_peak_bytes"] for sampling in SAMPLINGS)
    report |= machine.describe()
    if args.output:
        args.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
