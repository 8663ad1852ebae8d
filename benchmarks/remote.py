"""Bytes a sparse sample reads of a long video in S3: `python -m benchmarks.remote [--minutes 30] [--containers mp4]`.

A 1080p H.264 video of about 4 Mbit/s, a keyframe every two seconds, is generated (a short piece, its packets repeated)
as MP4 with the header at the end, and as Matroska and MPEG-TS; each is put into a local S3 server (moto, a process of
its own) and probed and decoded through the same code as in a job. `uniform=32` is the target: at most 5% of the MP4.
Matroska and MPEG-TS have no list of frames: counting them for `uniform` reads all, which is not measured here.
Probe and decode count together. Ends with one JSON line, also written to results/remote.json.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import boto3

from benchmarks.machine import RESULTS, describe
from pipeline.archive.remote import RemoteCopy
from pipeline.config import CLIPS_PER_ITEM, FRAMES_PER_CLIP
from pipeline.decoding.decoder import Decoder
from pipeline.decoding.sampling import parse_sampling, plan_clips
from pipeline.types import ResizeRecipe
from tests.long_videos import render_piece, repeat
from tests.s3 import BUCKET, s3_server, variables_set

RECIPE = ResizeRecipe(384, 384)
CASES = (
    ("mp4", "uniform=32"),
    ("mp4", "every=60s"),
    ("mkv", "every=60s"),
    ("ts", "every=60s"),
)
PIECE_S, FPS, SIZE, BIT_RATE, GOP_S = 8, 30, (1920, 1080), 4_000_000, 2


def sample(uri: str, sampling_text: str) -> dict[str, float]:
    """Probe and decode one object as workers do: each item opens it anew."""
    sampling, started, read = parse_sampling(sampling_text), time.perf_counter(), 0
    with Decoder() as decoder:
        with RemoteCopy(uri) as copy:
            size = copy.size
            probe = decoder.probe(copy.path, sampling, copy.filler)
            read += copy.bytes_read
        clips = plan_clips(probe, sampling, FRAMES_PER_CLIP)
        frames = 0
        for first in range(0, len(clips), CLIPS_PER_ITEM):
            with RemoteCopy(uri) as copy:
                decoded = decoder.decode(
                    copy.path, clips[first : first + CLIPS_PER_ITEM], RECIPE, None, fill=copy.filler
                )
                read += copy.bytes_read
                frames += sum(len(clip.pts_s) for clip in decoded.clips)
    return {
        "frames": frames,
        "mb": round(size / 1e6, 1),
        "mb_read": round(read / 1e6, 1),
        "share": round(read / size, 4),
        "seconds": round(time.perf_counter() - started, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--containers", nargs="+", default=["mp4", "mkv", "ts"], choices=["mp4", "mkv", "ts"])
    args = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder, s3_server() as variables, variables_set(variables):
        client = boto3.client("s3")
        piece = render_piece(Path(folder, "piece.mp4"), PIECE_S, FPS, SIZE, BIT_RATE, GOP_S)
        for kind in args.containers:
            path = repeat(piece, Path(folder, f"long.{kind}"), args.minutes * 60 // PIECE_S)
            client.upload_file(str(path), BUCKET, path.name)
            path.unlink()
            for _, sampling in (case for case in CASES if case[0] == kind):
                name = f"{kind} {sampling}"
                found[name] = sample(f"s3://{BUCKET}/{path.name}", sampling)
                print(f"{name:<16} {found[name]}", flush=True)
            client.delete_object(Bucket=BUCKET, Key=path.name)  # the server holds all it has in memory
    result = {
        "benchmark": "remote",
        "minutes": args.minutes,
        "video": f"{SIZE[0]}x{SIZE[1]}, {FPS} fps, H.264, a keyframe every {GOP_S} s",
        "mp4_uniform_32_share": found.get("mp4 uniform=32", {}).get("share"),
        "cases": found,
        **describe(),
    }
    (RESULTS / "remote.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
