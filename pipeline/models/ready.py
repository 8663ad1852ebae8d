"""Will these checkpoints load? Tried before any worker starts and before any large file is fetched.

The loaders themselves run, in a process of their own that has torch, on tensors that are shapes alone: the headers of
the weight files say names and shapes, the model says what it expects. Seconds, and no memory, whatever the size.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.models.checkpoints import ModelFiles, fetch

_ROOT = str(Path(__file__).parents[2])
_CHILD = (sys.executable, "-m", "pipeline.models.try_loading")


def make_ready(checkpoints: Sequence[ModelFiles], say: Callable[[str], object]) -> None:
    """Refuse what would not load, then fetch what is still on the hub. Raises UsageError, one line."""
    doubtful = [files for files in checkpoints if files.identity.name != "builtin"]
    if doubtful:
        _try_loading(doubtful)
    for files in doubtful:
        fetch(files, say)


def _try_loading(checkpoints: Sequence[ModelFiles]) -> None:
    asked = [{"role": f.role, "path": str(f.path), "shapes": f.weights().shapes} for f in checkpoints]
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (_ROOT, env.get("PYTHONPATH"))))
    tried = subprocess.run(_CHILD, input=json.dumps(asked), capture_output=True, text=True, check=False, env=env)
    for files, line in zip(checkpoints, tried.stdout.splitlines(), strict=False):
        if fault := json.loads(line):
            raise UsageError(f"{files.what}: {fault}")
    if tried.returncode != 0:  # what nobody foresaw: the checkpoint that was being tried, and the error's own words
        files = checkpoints[min(len(tried.stdout.splitlines()), len(checkpoints) - 1)]
        last = (tried.stderr.strip().splitlines() or [f"its process ended with {tried.returncode}"])[-1]
        raise UsageError(f"{files.what}: it does not load: {last}")
