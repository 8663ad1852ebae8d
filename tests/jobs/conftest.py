"""Jobs run as users run them: a process, its exit code, what it prints, what it leaves."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.archive import render_archive

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def job(name: str, *args: str, timeout_s: float = 900, env: dict[str, str] | None = None) -> Ended:
    """Run one job to its end."""
    done = subprocess.run(
        [sys.executable, "-m", f"jobs.{name}", *args],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=timeout_s,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def index_job(roots: Sequence[Path | str], output: Path | str, *args: str) -> Ended:
    return job("index", *map(str, roots), "--output", str(output), "--model", "builtin", "--num-cpus", "2", *args)


QUESTION = "What is happening?"


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="session")
def indexed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rendered archive, indexed once; tests read it and leave it as it is."""
    output = tmp_path_factory.mktemp("index") / "index"
    ended = index_job([archive], output, "--question", QUESTION, "--max-new-tokens", "8")
    assert ended.code == 0, ended.err
    return output


Fingerprint = Callable[[Path], dict[str, tuple[int, int]]]


def files_of(index: Path) -> dict[str, bytes]:
    """Every file of an index, and its bytes."""
    return {str(p.relative_to(index)): p.read_bytes() for p in sorted(index.rglob("*")) if p.is_file()}
