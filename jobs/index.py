"""Index an archive: new and changed videos, resuming what a crash left.

    python -m jobs.index ROOT... --output INDEX
    python -m jobs.index /archive --output /index --question "Is there a dog?" --model builtin
    ray job submit --working-dir . -- python -m jobs.index s3://bucket/videos --output s3://bucket/index

Exit codes: 0 the totals agree, also when some videos failed; 2 bad usage; 3 more videos failed than --max-failed; 4 the
totals do not agree with the listing; 5 a live run holds the index; 130 or 143 stopped; 1 a crash.
"""

import argparse
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from jobs import cli
from jobs.cli import BUILTIN_WARNING
from jobs.shots import look as find_shots
from pipeline.config import DEFAULT_CAPTION_PROMPT, DEFAULT_ENCODER, DEFAULT_MODEL, PRUNE_METHODS, IndexConfig
from pipeline.errors import UsageError
from pipeline.execution.executors import on_ray
from pipeline.execution.pools import ClusterOptions
from pipeline.execution.workers import Executor
from pipeline.ledger.committer import Pace
from pipeline.ledger.dry_run import dry_run
from pipeline.ledger.prepare import prepare
from pipeline.ledger.progress import Say, say_plainly
from pipeline.ledger.run_report import RunReport
from pipeline.run import run_index
from pipeline.storage.s3 import is_s3
from pipeline.types import Bounds


def main(argv: Sequence[str] | None = None, executor: Executor | None = None, pace: Pace | None = None) -> int:
    """`executor` and `pace` are for callers that run elsewhere, or commit more often, than the command line says."""
    args = parser().parse_args(argv)
    say = cli.say_of(args)
    return cli.run(lambda: _index(args, say, executor or on_ray(cluster_of(args)), pace), say)


def _index(args: argparse.Namespace, say: Say, executor: Executor, pace: Pace | None) -> int:
    config = _config(args)
    if args.probe and not args.dry_run:
        raise UsageError("--probe is given without --dry-run; a run reads headers anyway")
    _check_places(config)
    prepared = prepare(config, args.thresholds, say, args.dry_run)
    if args.dry_run:
        print(dry_run(prepared, args.probe))
        return 0
    stop_on_signals(say)
    report = run_index(prepared, executor, "index", say, pace=pace)
    say_end(report, say)
    if args.shots:
        find_shots(config.output, None, False, args.num_cpus, say)
    if "builtin" in (config.model, config.encoder_name):
        say(f"note: {BUILTIN_WARNING}")
    if args.json:
        print(report.as_json())
    return report.exit_code


def _config(args: argparse.Namespace) -> IndexConfig:
    return IndexConfig(
        roots=tuple(args.roots),
        output=args.output,
        model=args.model,
        encoder=args.encoder,
        prune=args.prune,
        p=args.p,
        sampling=args.sampling,
        caption_prompt=None if args.caption == "none" else args.caption_prompt,
        questions=tuple(args.question),
        max_new_tokens=args.max_new_tokens,
        include=tuple(args.include),
        exclude=tuple(args.exclude),
        limit=args.limit,
        budget_s=args.budget,
        budget_gpu_s=None if args.gpu_budget is None else 3600 * args.gpu_budget,
        redo=args.redo,
        max_failed=0 if args.strict else args.max_failed,
        keep_frames=not args.no_frames,
        device=args.device,
        batch_size=args.batch_size,
        bounds=Bounds(args.max_megapixels, args.max_hours, args.max_samples, args.decode_deadline),
    )


def cluster_of(args: argparse.Namespace) -> ClusterOptions:
    return ClusterOptions(
        args.address,
        args.num_cpus,
        args.num_gpus,
        args.shared_filesystem,
        args.decode_workers,
        args.describe_workers,
        args.describe_gpus,
        args.patience,
    )


def _check_places(config: IndexConfig) -> None:
    """Inside a Ray job the working directory is a copy somewhere on the cluster: relative paths mean nothing there."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
        return
    for place in (*config.roots, config.output):
        if not (is_s3(place) or place.startswith("file://") or Path(place).is_absolute()):
            raise UsageError(f"{place} is a relative path; inside a Ray job expected an absolute path or s3://")


def stop_on_signals(say: Say) -> None:
    """Staged work is safe wherever the run is stopped, so stopping is immediate: Ray's processes end with this one."""

    def stop(signum: int, frame: FrameType | None) -> None:
        say("stopped; what was staged is kept: run the same command again to go on", event="stopped")
        os._exit(128 + signum)

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop)


def say_end(report: RunReport, say: Say) -> None:
    """The report on stdout for people, or as the last event of a log for programs."""
    if say is say_plainly:
        print(report)
    else:
        facts = {name: getattr(report, name) for name in ("run_id", "listed", "ignored", "counts", "exit_code")}
        say(str(report), event="report", **facts, seconds=dict(report.watch.seconds))


def duration_s(text: str) -> float:
    """Seconds of a time as flags take it: a number and s, m or h."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number and a unit, such as 90m or 6h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def workers_from(text: str) -> tuple[int, int]:
    """Least and most workers of a pool as flags take them: N, or LEAST..MOST."""
    match = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number, or two such as 4..64")
    return int(match[1]), int(match[2] or match[1])


def parser() -> argparse.ArgumentParser:
    parser = cli.parser("index", __doc__)
    parser.add_argument(
        "roots",
        nargs="+",
        metavar="ROOT",
        help="folder, file, glob, manifest (.txt .csv .parquet) or s3://bucket/prefix",
    )
    parser.add_argument(
        "--output", required=True, metavar="INDEX", help="where the index is or will be: a folder or s3://"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be done and why; opens no video and writes nothing"
    )
    parser.add_argument("--probe", action="store_true", help="with --dry-run: open each video for its exact length")
    parser.add_argument(
        "--json", action="store_true", help="print the run's numbers as one line of JSON at the end, for alerts"
    )
    _add_what(parser)
    _add_how(parser)
    _add_limits(parser)
    add_where_it_runs(parser)
    return parser


def _add_what(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is asked")
    group.add_argument(
        "--question", action="append", default=[], metavar="TEXT", help="ask this of every video; may be repeated"
    )
    group.add_argument(
        "--caption-prompt",
        default=DEFAULT_CAPTION_PROMPT,
        metavar="TEXT",
        help=f"the prompt of captions (default: {DEFAULT_CAPTION_PROMPT!r}); another prompt adds captions",
    )
    group.add_argument("--caption", choices=["none"], help="none: make no captions")
    group.add_argument(
        "--include", action="append", default=[], metavar="PATTERN", help="only paths below a root that match this glob"
    )
    group.add_argument(
        "--exclude", action="append", default=[], metavar="PATTERN", help="no paths that match this glob"
    )
    group.add_argument(
        "--redo",
        choices=["sample", "embed", "caption", "answer"],
        help="recompute this stage and later ones for clips indexed with other settings; without it the run is "
        "refused, so that a typo cannot re-caption an archive",
    )


def _add_how(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how")
    group.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help=f"hub id, local folder, or builtin (default: {DEFAULT_MODEL}; with AdaTP a clip then costs 81%% of its "
        f"unpruned FLOPs end to end, with adatp+repframes 25%% when it has 8 segments; a 7B model: 37%% and 20%%); "
        f"{BUILTIN_WARNING}",
    )
    group.add_argument(
        "--encoder",
        help=f"SigLIP, SigLIP2 or CLIP (default: builtin for builtin, else {DEFAULT_ENCODER}, 4%% of a 0.5B model's "
        "FLOPs; the paper's google/siglip-so400m-patch14-384 adds 75%% to them, 18%% to a 7B model's)",
    )
    group.add_argument(
        "--thresholds",
        type=Path,
        metavar="FILE",
        help="the encoder's thresholds, made by jobs.calibrate (default: those the index was made with, else the "
        "encoder's own, else measured on videos of this archive and kept with the index)",
    )
    group.add_argument(
        "--prune",
        choices=PRUNE_METHODS,
        default="adatp",
        help="how visual tokens are pruned (default: adatp); none gives the model all of them; adatp+repframes also "
        "encodes a single frame of each segment, the cheapest, and beyond the paper",
    )
    group.add_argument(
        "--p",
        type=float,
        default=1.0,
        help="the paper's p: 1 keeps 40%% to 12%% of the tokens; larger keeps more (default: 1)",
    )
    group.add_argument(
        "--sampling",
        default="every=1s",
        help="every=SECONDSs: the frame on screen at each step; uniform=N: N frames per video (default: every=1s)",
    )
    group.add_argument(
        "--max-new-tokens", type=int, default=128, help="longest caption or answer, in tokens (default: 128)"
    )
    group.add_argument(
        "--shots",
        action="store_true",
        help="when the run is done, find shots frame by frame on this machine's cores, as jobs.shots does: decodes all "
        "of each new video once more",
    )
    group.add_argument(
        "--no-frames", action="store_true", help="do not write the table frames, which is nine tenths of all rows"
    )
    group.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="clips that a worker describes at the same time (default: 32 on a CPU; on a GPU, as many as fit)",
    )
    group.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="where the models run (default: auto, a GPU if there is one); cuda is refused on a machine without",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits")
    group.add_argument(
        "--limit", type=int, metavar="N", help="index at most N videos, newest first; the rest stays pending"
    )
    group.add_argument(
        "--budget",
        type=duration_s,
        metavar="TIME",
        help="stop working after this long, such as 6h; newest videos go first, the rest stays pending",
    )
    group.add_argument(
        "--gpu-budget",
        type=float,
        metavar="HOURS",
        help="the same in GPU-hours: number of GPUs held, times hours",
    )
    group.add_argument(
        "--max-failed",
        type=int,
        metavar="N",
        help="exit 3 when more than N videos newly fail (default: half of those tried, and at least 20)",
    )
    group.add_argument("--strict", action="store_true", help="the same as --max-failed 0")
    defaults = Bounds()
    group.add_argument(
        "--max-megapixels",
        type=float,
        default=defaults.max_megapixels,
        help="videos with larger frames are refused as TooLarge (default: 64)",
    )
    group.add_argument(
        "--max-hours",
        type=float,
        default=defaults.max_hours,
        help="longer videos are refused as TooLarge (default: 12)",
    )
    group.add_argument(
        "--max-samples",
        type=int,
        default=defaults.max_samples,
        help="videos that need more sampled frames are refused as TooLarge (default: 100000)",
    )
    group.add_argument(
        "--decode-deadline",
        type=float,
        default=defaults.deadline_s,
        metavar="SECONDS",
        help="kill a decoder that has not finished a frame for this long (default: 60)",
    )


def add_where_it_runs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where it runs")
    group.add_argument(
        "--address", help="Ray cluster to join (default: RAY_ADDRESS, else a Ray of its own on this machine)"
    )
    group.add_argument("--num-cpus", type=int, metavar="N", help="cores of a Ray of its own (default: all)")
    group.add_argument("--num-gpus", type=int, metavar="N", help="GPUs of a Ray of its own (default: all)")
    group.add_argument(
        "--decode-workers",
        type=workers_from,
        metavar="N or LEAST..MOST",
        help="workers that decode, one core each; 4..64 adds one while work waits (default: planned from the nodes, "
        "and planned again as nodes come and go; set both where an autoscaler adds nodes)",
    )
    group.add_argument(
        "--describe-workers",
        type=workers_from,
        metavar="N or LEAST..MOST",
        help="workers that load the models, one core each (default: planned, one per GPU)",
    )
    group.add_argument(
        "--describe-gpus",
        type=float,
        metavar="SHARE",
        help="GPUs per worker of --describe-workers; 0.5 puts two on one (default: 1 if there are any)",
    )
    group.add_argument(
        "--patience",
        type=duration_s,
        default=ClusterOptions.patience_s,
        metavar="TIME",
        help="end the run if no worker finishes anything for this long (default: 1h)",
    )
    group.add_argument(
        "--shared-filesystem", action="store_true", help="local paths mean the same files on every node of the cluster"
    )
    cli.add_log_format(group)


if __name__ == "__main__":
    sys.exit(main())
