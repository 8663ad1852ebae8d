"""Where lmms-eval is: an environment of its own (`make lmms`) that LMMS_PYTHON names; no dependency of the project."""

import os
from pathlib import Path

import pytest


def lmms_python() -> Path:
    """Its interpreter. `make nightly` sets LMMS_PYTHON."""
    python = Path(os.environ.get("LMMS_PYTHON", ""))
    if not python.is_file():
        pytest.fail(
            "LMMS_PYTHON names no interpreter: run `make nightly`, or `make lmms` and set it to .lmms/bin/python"
        )
    return python


def lmms_environment(home: Path) -> dict[str, str]:
    """Variables that keep lmms-eval off the network and in `home`."""
    return {
        "HF_HOME": str(home / "hf"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENAI_API_URL": "http://127.0.0.1:9/",
    }
