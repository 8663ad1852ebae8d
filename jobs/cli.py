"""What every job's command line shares: what it takes, how it speaks, and how it ends."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from pipeline.errors import JobError
from pipeline.ledger.progress import Say, say_as_json, say_plainly
from pipeline.reading.finding import SearchOptions

BUILTIN_WARNING = (
    "builtin is a small model that ships for demos and tests: it knows rendered shapes and nothing else; "
    "of real footage its words mean nothing"
)


def run(job: Callable[[], int], say: Say = say_plainly) -> int:
    """The job's own exit code; a JobError becomes one line on stderr and its code, Ctrl-C 130.

    A reader that has seen enough (`| head`) ends the job quietly, with 141 as the shell's own tools end.
    """
    try:
        code = job()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still in the buffer goes nowhere
        return 141
    except JobError as error:
        say(f"error: {' '.join(str(error).split())}", event="error", exit_code=error.exit_code)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


class Parser(argparse.ArgumentParser):
    """Refuses in one line, as jobs do; --help has the rest."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def parser(job: str, description: str | None) -> Parser:
    """A job's command line: its module's docstring as it stands, and no flag by half its name."""
    return Parser(
        prog=f"python -m jobs.{job}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_log_format(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--log-format",
        choices=["text", "json"],
        default="text",
        help="json: what a run says on stderr is one JSON object a line, with at, event, text and numbers",
    )


def say_of(args: argparse.Namespace) -> Say:
    """How a job speaks that has --log-format."""
    return say_as_json if args.log_format == "json" else say_plainly


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """What jobs that search by words take; `search_options` reads them."""
    defaults = SearchOptions()
    parser.add_argument(
        "--top", type=int, default=defaults.top, metavar="N", help=f"at most N segments (default: {defaults.top})"
    )
    add_where(parser, "segments")
    parser.add_argument("--min-score", type=float, metavar="SCORE", help="only segments with at least this score")
    parser.add_argument(
        "--no-weak",
        action="store_true",
        help="only what reaches the encoder's threshold for being about a text",
    )
    parser.add_argument(
        "--all", action="store_true", help="show look-alikes too (default: of segments alike, only the best)"
    )
    parser.add_argument(
        "--merge",
        type=float,
        metavar="SECONDS",
        help="join segments of a video at most this far apart: each moment once; look-alikes are joined, not left out",
    )
    parser.add_argument("--encoder", help="where the index's encoder is now (default: by the name the index recorded)")
    parser.add_argument("--thresholds", type=Path, metavar="FILE", help="its thresholds, made by jobs.calibrate")


def search_options(args: argparse.Namespace) -> SearchOptions:
    return SearchOptions(
        args.top, args.where, args.min_score, not args.no_weak, args.all, args.merge, args.include_deleted
    )


def add_where(parser: argparse.ArgumentParser, rows: str) -> None:
    """Which rows of a table are meant."""
    parser.add_argument(
        "--where",
        metavar="SQL",
        help=f"only rows for which this is true: a condition on columns of {rows} and videos, such as "
        "\"start_s > 60 AND name LIKE '%%.mp4'\"; nothing else can be written in it",
    )
    parser.add_argument("--include-deleted", action="store_true", help="videos that are no longer in the archive too")


def plain(text: str) -> str:
    """Text of names and models as one line: control characters are shown, not obeyed."""
    return "".join(char if char.isprintable() else "�" for char in text)
