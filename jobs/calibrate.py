"""Measure an encoder's similarity thresholds on an archive of your own, without labels.

    python -m jobs.calibrate --encoder openai/clip-vit-base-patch32 /archive --output thresholds.json
    python -m jobs.index /archive --output INDEX --encoder openai/clip-vit-base-patch32 --thresholds thresholds.json

tau_s (two frames are one segment) is where a pair of neighbouring frames stands out from what neighbours usually differ
by; tau_t (a segment is about a question) is what texts and frames paired at random exceed once in twenty. See
pipeline/describing/calibration.py.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs import cli
from pipeline.archive.listing import list_archive
from pipeline.describing.calibration import PHRASES, TooFewFrames, calibrate
from pipeline.errors import UsageError
from pipeline.execution.measure_thresholds import embed_videos
from pipeline.models.checkpoints import fetch, resolve_model
from pipeline.models.encoder import Encoder
from pipeline.types import Bounds, Source


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(lambda: _calibrate(_parser().parse_args(argv)))


def _calibrate(args: argparse.Namespace) -> int:
    files = resolve_model(args.encoder, "encoder")
    listing = list_archive(args.roots)
    there = [row for row in listing.table.to_pylist() if row["refusal"] is None]
    if not there:
        raise UsageError("no video among the roots; expected some to measure on")
    chosen = there[:: max(1, len(there) // args.videos)][: args.videos]
    fetch(files, print)
    encoder = Encoder(files.path)
    sources = [Source(*(row[name] for name in ("video_id", "uri", "path", "version"))) for row in chosen]
    vectors = embed_videos(encoder, files, sources, args.sampling, Bounds())
    texts = tuple(args.texts.read_text().splitlines()) if args.texts else PHRASES
    try:
        found = calibrate(vectors, encoder.texts(texts).numpy())
    except TooFewFrames as error:
        raise UsageError(f"cannot calibrate on {len(vectors)} readable videos: {error}") from error
    result = {"tau_s": round(found.tau_s, 4), "tau_t": round(found.tau_t, 4), "encoder": files.identity.id}
    result |= {"videos": len(vectors), "neighbouring_frames": found.n_pairs, "text_pairs": found.n_text_pairs}
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{args.output}: tau_s {found.tau_s:.4f} from {found.n_pairs} neighbouring frames, ", end="")
    print(f"tau_t {found.tau_t:.4f} from {found.n_text_pairs} pairs of text and frame")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("calibrate", __doc__)
    parser.add_argument("roots", nargs="+", metavar="ROOT", help="videos like those to be indexed")
    parser.add_argument("--encoder", required=True, help="hub id, local folder or builtin")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="thresholds.json to write")
    parser.add_argument("--sampling", default="every=1s", help="the --sampling the index will have (default: every=1s)")
    parser.add_argument("--videos", type=int, default=100, help="videos looked at, evenly spread (default: 100)")
    parser.add_argument(
        "--texts", type=Path, metavar="FILE", help="one phrase a line, as users will ask (default: 48 everyday phrases)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
