"""docs/querying.md and recipes.md are run, block by block, on a small rendered index; `--update` rewrites them.

A block of SQL or Python is followed by a block of text: what it prints. The index stands at ./index, as the page says.
"""

import argparse
import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import duckdb

from pipeline.planted.archive import render_archive

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "docs" / name for name in ("querying.md", "recipes.md")]
BLOCK = re.compile(r"^```(sql|python|sh)\n((?:(?!```).)*)^```\n\n^```text\n(.*?)^```", re.DOTALL | re.MULTILINE)
QUESTIONS = ("What colour is the square?", "Which of these appears: circle, diamond, star or triangle?")


def build(folder: Path) -> None:
    """`folder`/index: four rendered videos and a file that is none, captioned, asked two questions, shots found."""
    render_archive(folder / "archive", seed=7, n_videos=4, seconds=16)
    (folder / "archive" / "interview.mp4").write_bytes(b"no video " * 100)
    flags = [flag for question in QUESTIONS for flag in ("--question", question)]
    command = [
        "index",
        str(folder / "archive"),
        "--output",
        str(folder / "index"),
        "--model",
        "builtin",
        "--shots",
        *flags,
    ]
    subprocess.run([sys.executable, "-m", "jobs", *command, "--num-cpus", "2"], cwd=ROOT, check=True)


def printed(folder: Path, page: str) -> Iterator[tuple[str, str, str]]:
    """(code, what the page says it prints, what it prints) for every block, in order, in one session."""
    python_first = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ours = patch.dict(os.environ, {"PYTHONPATH": str(ROOT), "PATH": python_first})
    with ours, contextlib.chdir(folder), duckdb.connect() as db:
        db.execute(Path("index/views.sql").read_text())
        session: dict[str, object] = {}
        for language, code, expected in BLOCK.findall(page):
            yield code, expected, _run(language, code, db, session)


def _run(language: str, code: str, db: duckdb.DuckDBPyConnection, session: dict[str, object]) -> str:
    out = io.StringIO()
    if language == "sql":
        out.write(f"{db.sql(code)}\n")
    elif language == "python":
        with contextlib.redirect_stdout(out):
            exec(code, session)
    else:
        done = subprocess.run(code, shell=True, text=True, capture_output=True)
        out.write(done.stdout if done.returncode == 0 else f"{done.stdout}exit {done.returncode}: {done.stderr}")
    return "\n".join(line.rstrip() for line in out.getvalue().strip("\n").splitlines()) + "\n"


def _with_outputs(page: str, found: Iterator[str]) -> str:
    return BLOCK.sub(lambda block: f"```{block[1]}\n{block[2]}```\n\n```text\n{next(found)}```", page)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--update", action="store_true", required=True, help="put what the blocks print into the page")
    parser.add_argument(
        "--folder", type=Path, help="where index/ stands already (default: one is made for the occasion)"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if not (folder / "index").exists():
            build(folder)
        for path in PAGES:
            page = path.read_text()
            found = iter([output for _, _, output in printed(folder, page)])
            path.write_text(_with_outputs(page, found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
