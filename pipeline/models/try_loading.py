"""The process of ready.py: loads checkpoints whose weights are shapes alone. One JSON line each: null, or the fault."""

import json
import sys
from pathlib import Path
from typing import Any

import adatp
from pipeline.models.encoder import Encoder


def main() -> None:
    for asked in json.load(sys.stdin):
        print(json.dumps(_fault(asked)), flush=True)


def _fault(asked: dict[str, Any]) -> str | None:
    tensors = adatp.shapes({name: tuple(shape) for name, shape in asked["shapes"].items()})
    path = Path(asked["path"])
    try:
        if asked["role"] == "encoder":
            Encoder(path, tensors=tensors).is_cut("a red circle")
        else:
            adatp.load(path, tensors=tensors).prompt.ids("What is seen?")
    except adatp.CheckpointError as error:
        return " ".join(str(error).split())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError) as error:
        # what transformers and its tokenizers raise over files they cannot make sense of
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None


if __name__ == "__main__":
    main()
