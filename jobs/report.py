"""A page to look at an index with: one self-contained HTML file.

    python -m jobs.report --index INDEX --output report.html

Storyboards, captions, answers with evidence, failures with reasons, what pruning saved. It needs no network, and shows
names and texts as text whatever they hold. Reads only; takes no lock.
Exit codes: 0 written; 2 bad usage, one line, before any work.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jobs import cli
from pipeline.errors import UsageError
from pipeline.index.snapshot import Index
from pipeline.reading.page import PageOptions, write_page


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(lambda: _report(_parser().parse_args(argv)))


def _report(args: argparse.Namespace) -> int:
    if args.videos < 1 or args.thumbnails < 0:
        raise UsageError(f"--videos {args.videos} --thumbnails {args.thumbnails} given; expected at least 1 and 0")
    output: Path = args.output
    if not output.absolute().parent.is_dir():
        raise UsageError(f"--output {output}: there is no folder {output.absolute().parent}")
    if output.is_dir():
        raise UsageError(f"--output {output} is a folder; expected the name of a file")
    index = Index.open(args.index)
    n = _write(index, output, PageOptions(args.videos, args.thumbnails))
    print(f"{output}: {n:,} videos, {output.stat().st_size / 1e6:.1f} MB")
    return 0


def _write(index: Index, output: Path, options: PageOptions) -> int:
    """The whole page or none: a half-written file never has the name asked for."""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=output.absolute().parent, suffix=".html")
    except OSError as error:
        raise UsageError(f"--output {output}: {error.strerror}") from error
    try:
        with open(descriptor, "w+", encoding="utf-8") as out:
            n = write_page(index, out, options)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, output)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return n


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("report", __doc__)
    parser.add_argument("--index", required=True, help="folder or s3:// prefix of the index")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the HTML file to write")
    defaults = PageOptions()
    parser.add_argument(
        "--videos",
        type=int,
        default=defaults.max_videos,
        metavar="N",
        help="at most N videos in the page: failed ones and the newest first (default: 1000)",
    )
    parser.add_argument(
        "--thumbnails",
        type=int,
        default=defaults.max_thumbnails,
        metavar="N",
        help="at most N pictures per video, spread over its segments (default: 8; 1,000 videos are then about 30 MB)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
