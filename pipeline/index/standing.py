"""Standing questions: kept with the index, and asked of whatever later runs index."""

import json

from pipeline.errors import UsageError
from pipeline.index.snapshot import Index

STANDING = "_state/standing.json"


def read_standing(index: Index) -> dict[str, str]:
    """Stage (`answer:<question_id>:<scope>`) -> question."""
    try:
        found = json.loads(index.storage.read_bytes(STANDING))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UsageError(f"{index.url}/{STANDING} is not JSON: {error}") from error
    return {str(stage): str(text) for stage, text in found.items()}


def keep_standing(index: Index, questions: dict[str, str]) -> None:
    """Add questions by stage. The caller holds the lock."""
    before = read_standing(index)
    if before | questions != before:
        index.storage.write_atomic(STANDING, json.dumps(before | questions, indent=1, sort_keys=True).encode())
