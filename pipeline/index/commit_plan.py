"""What a commit does, as JSON under `_state/commits`: written before anything changes, and read again after a crash."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from pipeline.index.names import count, expect, is_plain, is_table_file, reading, record_of
from pipeline.index.snapshot import Encoder, Index, Snapshot
from pipeline.index.tables import COMMITTED_TABLES, TABLES

T = TypeVar("T")

FOLDER = "_state/commits"


@dataclass(frozen=True)
class Plan:
    """What a commit does: enough, with the staged items and the snapshot before it, to do it again bit for bit."""

    commit: int
    token: str
    inputs: tuple[tuple[str, ...], ...] = ()  # groups of staged items; each group becomes one file per table
    has_body: bool = False
    rewrites: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # table -> new file -> old files in it
    removes: dict[str, list[str]] = field(default_factory=dict)
    drops: dict[str, list[tuple[str, str | None]]] = field(default_factory=dict)
    encoder: Encoder | None = None
    done: bool = False

    @property
    def path(self) -> str:
        return f"{FOLDER}/{self.commit:08d}.json"

    @property
    def body_path(self) -> str:
        return f"{FOLDER}/{self.commit:08d}-{self.token}.parquet"

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Plan":
        """ValueError, KeyError or TypeError for what no commit can have written."""
        fields = record_of(data)
        plan = cls(
            commit=count(fields["commit"]),
            token=fields["token"],
            inputs=tuple(tuple(group) for group in fields["inputs"]),
            has_body=fields["has_body"] is True,
            rewrites=_tables(fields["rewrites"], lambda new: {name: list(old) for name, old in new.items()}),
            removes=_tables(fields["removes"], list),
            drops=_tables(fields["drops"], lambda pairs: [(video_id, subkey) for video_id, subkey in pairs]),
            encoder=Encoder.from_json(fields["encoder"]),
            done=fields["done"] is True,
        )
        if plan.has_body or not plan.done:
            expect(is_plain(plan.token), plan.token)
        for key in (key for group in plan.inputs for key in group):
            expect(is_plain(key), key)
        replaced = {t: sorted(name for old in new.values() for name in old) for t, new in plan.rewrites.items()}
        expect(replaced == plan.removes, "removes")
        for name in (name for new in plan.rewrites.values() for both in new.items() for name in (both[0], *both[1])):
            expect(is_table_file(name), name)
        for table, pairs in plan.drops.items():
            for video_id, subkey in pairs:
                expect(isinstance(video_id, str), video_id)
                expect(subkey is None or (isinstance(subkey, str) and bool(TABLES[table].subkey)), subkey)
        return plan


def open_commit(index: Index, snapshot: Snapshot) -> Plan | None:
    """The commit that was begun and not closed, or None."""
    for number in (snapshot.commit + 1, snapshot.commit):
        path = Plan(number, "").path
        try:
            data = index.storage.read_bytes(path)
        except FileNotFoundError:
            continue
        with reading("the plan of a commit", f"{index.url}/{path}"):
            plan = Plan.from_json(data)
            expect(plan.commit == number, f"commit {plan.commit}")
            if number > snapshot.commit:
                for table, names in plan.removes.items():
                    expect(snapshot.files.get(table, {}).keys() >= set(names), f"{table} without {names}")
        return None if plan.done else plan
    return None


def _tables(found: dict[str, Any], form: Callable[[Any], T]) -> dict[str, T]:
    """What a plan says of some tables, each in its form."""
    for table in found:
        expect(table in COMMITTED_TABLES, table)
    return {table: form(value) for table, value in found.items()}
