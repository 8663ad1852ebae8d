"""Standing questions: kept with the index, and asked of whatever later runs index."""

import json

from pipeline.index.names import expect, reading, record_of
from pipeline.index.snapshot import Index
from pipeline.types import Target

STANDING = "_state/standing.json"


def read_standing(index: Index) -> dict[Target, str]:
    """What is asked of everything -> its words."""
    try:
        data = index.storage.read_bytes(STANDING)
    except FileNotFoundError:
        return {}
    with reading("the standing questions of an index", f"{index.url}/{STANDING}"):
        found = record_of(data)
        questions = {Target(target): text for target, text in found.items()}
        for target, text in questions.items():
            expect(target.scope is not None and target == Target.answer(text, target.scope), target)
        return questions


def keep_standing(index: Index, questions: dict[Target, str]) -> None:
    """Add questions. The caller holds the lock."""
    before = read_standing(index)
    if before | questions != before:
        index.storage.write_atomic(STANDING, json.dumps(before | questions, indent=1, sort_keys=True).encode())
