"""What a number was measured on and with: recorded beside every result."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
import transformers

RESULTS = Path(__file__).parent / "results"


def describe() -> dict[str, Any]:
    """Machine, versions and commit; no host name."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "machine": f"{cpus}-core {platform.machine()} CPU" + (f", {gpu}" if gpu else ", no GPU"),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "commit": _commit(),
    }


def _commit() -> str:
    """The commit measured, with a + where the library or the benchmarks differ from it."""
    here = Path(__file__).parent.parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + (
        "+" if git("status", "--porcelain", "adatp", "benchmarks/*.py") else ""
    )
