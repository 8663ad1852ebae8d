"""Find the shots of indexed videos, frame by frame: an optional pass that decodes every frame, small.

    python -m jobs.shots --index INDEX
    python -m jobs.shots --index INDEX --where "path LIKE 'films/%'"

Rows land in the table `shots`. A shot begins where most of the picture changes from one frame to the next; dissolves
and fades are not found. It decodes all of a video, once, on this machine's cores; a video that has its shots is not
decoded again until it changes. `jobs.index --shots` does the same at the end of each run.
Exit codes: 0 done, also with videos that failed (rows in `errors`, stage shots); 2 bad usage, one line, before any
work; 5 a live run holds the index.
"""

import argparse
import sys
from collections.abc import Sequence

from jobs import cli
from pipeline.index.snapshot import Index
from pipeline.ledger.progress import Say
from pipeline.shots.run import find_all_shots


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    say = cli.say_of(args)
    return cli.run(lambda: look(args.index, args.where, args.redo, args.workers, say), say)


def look(url: str, where: str | None, redo: bool, workers: int | None, say: Say) -> int:
    """The pass, and one line about it."""
    report = find_all_shots(Index.open(url), where, redo, workers, lambda text: say(text))
    cost = f", {report.seconds / report.hours:,.0f} s of decoding per hour of video" if report.hours else ""
    failed = f", {report.n_failed:,} failed (see the table errors)" if report.n_failed else ""
    print(f"shots of {report.n_done:,} videos found{failed}, {report.n_there:,} had theirs{cost}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("shots", __doc__)
    parser.add_argument("--index", required=True, help="folder or s3:// prefix of the index")
    parser.add_argument("--where", metavar="SQL", help="only videos of which this is true: a condition on columns")
    parser.add_argument("--redo", action="store_true", help="find them again where they are there or failed for good")
    parser.add_argument("--workers", type=int, metavar="N", help="videos decoded at a time (default: one per core)")
    cli.add_log_format(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
