"""docs/first_steps.md, run as it stands; `python -m tests.first_steps --update` writes what its commands print.

The commands run in a folder that has the repository's files beside a .venv that is this environment, so that `make`
finds it installed. What differs from run to run is told apart by `...`, and a line that is nothing else stands for any
lines (--update puts them all in where something changed: shorten by hand).
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "first_steps.md"
BLOCK = re.compile(r"^```sh\n((?:(?!```).)*)^```\n\n^```text\n(.*?)^```", re.DOTALL | re.MULTILINE)
VARIES = re.compile(r"\d{8}T\d{6}-[0-9a-f]{8}|\d+\.\d s\b|\d+% of one worker|(?<=pools: ).*|(?<=/)tmp\S*(?=/index)")
PROGRESS = re.compile(r"\d+/\d+ videos, .* elapsed")  # a line a minute, where the machine is slow


def steps(page: str) -> list[tuple[str, str]]:
    """(commands, what the page says they print) of every block that says so."""
    return BLOCK.findall(page)


def lay_out(folder: Path) -> None:
    """A checkout that is installed already."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "adatp", "pipeline", "jobs"):
        (folder / name).symlink_to(ROOT / name)
    binaries = folder / ".venv" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (binaries / "python").chmod(0o755)
    (folder / ".venv" / "installed").touch()


def printed(folder: Path, page: str) -> Iterator[tuple[str, str, str]]:
    """(commands, what the page says they print, what they print), in order."""
    env = {**os.environ, "PYTHONPATH": str(folder), "LC_ALL": "C.UTF-8"}
    for commands, expected in steps(page):
        done = subprocess.run(
            ["sh", "-ec", commands], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{commands} ended with {done.returncode}: {done.stdout}")
        said = [line.rstrip() for line in done.stdout.strip("\n").splitlines() if not PROGRESS.match(line)]
        lines = [VARIES.sub("...", line) for line in said]
        yield commands, expected, "\n".join(lines) + "\n"


def agrees(expected: str, found: str) -> bool:
    """Whether a page that says `expected` tells the truth about what was `found`."""
    lines = ["(?:.*\n)*" if line == "..." else re.escape(line) + "\n" for line in expected.splitlines()]
    return re.fullmatch("".join(lines), found) is not None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--update", action="store_true", required=True, help="put what commands print into the page")
    parser.parse_args()
    page = PAGE.read_text()
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder))
        told = iter([said if agrees(said, found) else found for _, said, found in printed(Path(folder), page)])
    PAGE.write_text(BLOCK.sub(lambda block: f"```sh\n{block[1]}```\n\n```text\n{next(told)}```", page))
    return 0


if __name__ == "__main__":
    sys.exit(main())
