"""What every job's command line shares: what it takes, how it speaks, and how it ends."""

import argparse
from collections.abc import Callable
from typing import NoReturn

from pipeline.errors import JobError
from pipeline.ledger.progress import Say, say_as_json, say_plainly


def run(job: Callable[[], int], say: Say = say_plainly) -> int:
    """The job's own exit code; a JobError becomes one line on stderr and its code, Ctrl-C 130."""
    try:
        return job()
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
