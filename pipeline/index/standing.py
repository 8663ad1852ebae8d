"""Standing questions: kept with the index, and asked of whatever later runs index."""

import json

from pipeline.config import answer_stage
from pipeline.index.names import expect, reading, record_of
from pipeline.index.snapshot import Index

STANDING = "_state/standing.json"


def read_standing(index: Index) -> dict[str, str]:
    """Stage (`answer:<question_id>:<scope>`) -> question."""
    try:
        data = index.storage.read_bytes(STANDING)
    except FileNotFoundError:
        return {}
    with reading("the standing questions of an index", f"{index.url}/{STANDING}"):
        found = record_of(data)
        for stage, text in found.items():
            expect(isinstance(text, str) and stage == answer_stage(text, stage.rpartition(":")[2]), stage)
            expect(stage.endswith((":video", ":clip")), stage)
        return found


def keep_standing(index: Index, questions: dict[str, str]) -> None:
    """Add questions by stage. The caller holds the lock."""
    before = read_standing(index)
    if before | questions != before:
        index.storage.write_atomic(STANDING, json.dumps(before | questions, indent=1, sort_keys=True).encode())
