"""Similarity thresholds kept with the index, by encoder: what was measured once is the recipe of every later run."""

import json
from typing import Any

from pipeline.config import Thresholds
from pipeline.errors import UsageError
from pipeline.index.snapshot import Index

THRESHOLDS = "_state/thresholds.json"


def read_thresholds(index: Index, encoder_id: str) -> Thresholds | None:
    """What the index's clips were cut with by this encoder; None where it made none."""
    found = _read(index).get(encoder_id)
    if found is None:
        return None
    try:
        return Thresholds(tau_s=float(found["tau_s"]), tau_t=float(found["tau_t"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{index.url}/{THRESHOLDS}: expected numbers tau_s and tau_t of {encoder_id}") from error


def keep_thresholds(index: Index, encoder_id: str, thresholds: Thresholds, origin: str) -> None:
    """Remember them, and where they are from. The caller holds the lock."""
    before = _read(index)
    values = {"tau_s": thresholds.tau_s, "tau_t": thresholds.tau_t}
    if any(before.get(encoder_id, {}).get(name) != value for name, value in values.items()):
        kept = before | {encoder_id: values | {"origin": origin}}
        index.storage.write_atomic(THRESHOLDS, json.dumps(kept, indent=1, sort_keys=True).encode())


def _read(index: Index) -> dict[str, Any]:
    try:
        found = json.loads(index.storage.read_bytes(THRESHOLDS))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UsageError(f"{index.url}/{THRESHOLDS} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{index.url}/{THRESHOLDS}: expected thresholds by encoder")
    return found
