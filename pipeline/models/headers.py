"""What safetensors files say of themselves: names, shapes and sizes of tensors, without reading a weight.

A file is 8 bytes of length, that many bytes of JSON, and the tensors. Source: the safetensors format's documentation.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError

INDEX_FILE = "model.safetensors.index.json"
MAX_HEADER = 100_000_000  # bytes, the format's own bound


@dataclass(frozen=True)
class Weights:
    """The tensors of a checkpoint by name. `n_bytes` is their size as stored."""

    shapes: dict[str, tuple[int, ...]]
    n_values: int
    n_bytes: int


def weight_files(folder: Path, what: str) -> list[str]:
    """Names of the files that hold the weights: those the index names, else every *.safetensors of the folder.

    Raises UsageError when there is none, or the index names one that is not there. `what` is how messages begin.
    """
    here = sorted(path.name for path in folder.glob("*.safetensors"))
    wanted = files_of_index(folder, what)
    if wanted is None:
        if here:
            return here
        others = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".gguf"))
        found = f"only {', '.join(others[:3])}, which can run code when read" if others else "no weights"
        raise UsageError(f"{what}: found {found}; expected *.safetensors: take a revision that has them, or convert it")
    if missing := [name for name in wanted if name not in here]:
        raise UsageError(
            f"{what}: {len(missing)} of {len(wanted)} weight files are missing: {', '.join(missing[:3])}; "
            "fetch them again"
        )
    return wanted


def files_of_index(folder: Path, what: str) -> list[str] | None:
    """Weight files that `model.safetensors.index.json` names, sorted; None without an index."""
    path = folder / INDEX_FILE
    if not path.is_file():
        return None
    try:
        names = {str(name) for name in json.loads(path.read_text())["weight_map"].values()}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UsageError(f"{what}: {INDEX_FILE} has no weight_map; expected tensor names and their files") from error
    if strange := sorted(name for name in names if "/" in name or "\\" in name or not name.endswith(".safetensors")):
        raise UsageError(f"{what}: {INDEX_FILE} names {strange[0]!r}; expected a *.safetensors file beside it")
    return sorted(names)


def read_weights(folder: Path, what: str) -> Weights:
    """The headers of all weight files. UsageError for a missing, truncated or damaged one; nothing else is read."""
    return merge({name: _read_header(folder / name, what) for name in weight_files(folder, what)})


def merge(headers: Mapping[str, Mapping[str, Any]]) -> Weights:
    """Headers by file -> the checkpoint's tensors."""
    entries = {name: entry for header in headers.values() for name, entry in header.items() if name != "__metadata__"}
    shapes = {name: tuple(int(n) for n in entry["shape"]) for name, entry in entries.items()}
    n_bytes = sum(entry["data_offsets"][1] - entry["data_offsets"][0] for entry in entries.values())
    n_values = 0
    for shape in shapes.values():
        size = 1
        for n in shape:
            size *= n
        n_values += size
    return Weights(shapes, n_values, n_bytes)


def _read_header(path: Path, what: str) -> dict[str, Any]:
    there = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: Any = None
        if 0 < length <= min(MAX_HEADER, there):
            try:
                header = json.loads(file.read(length))
            except ValueError:
                header = None
    if not isinstance(header, dict):
        raise UsageError(
            f"{what}: {path.name} ({there} bytes) is damaged or cut short: it has no header; fetch it again"
        )
    try:
        end = 8 + length + max((e["data_offsets"][1] for n, e in header.items() if n != "__metadata__"), default=0)
    except (KeyError, TypeError, IndexError) as error:
        raise UsageError(f"{what}: {path.name} has a header that is not safetensors'; fetch it again") from error
    if there != end:
        raise UsageError(f"{what}: {path.name} has {there} bytes, but its header says {end}; fetch it again")
    return header
