"""What is owed: the plan's inputs read from an index, what a plan is refused for, and its one line for people."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipeline.config import IndexConfig, Recipe
from pipeline.errors import UsageError
from pipeline.index.runs import last_config
from pipeline.index.snapshot import SNAPSHOT, Index
from pipeline.index.standing import read_standing
from pipeline.ledger.plan import PLAN_COLUMNS, Plan, Todo, known_videos
from pipeline.ledger.prepare import Prepared
from pipeline.storage.places import open_storage
from pipeline.types import KINDS, Target


def ledger_of(index: Index) -> pa.Table:
    """What a plan needs of `videos`, a batch at a time: the table as it is would be half of the driver's memory."""
    known = index.at_one_snapshot(lambda snapshot: known_videos(index.batches_at(snapshot, "videos", PLAN_COLUMNS)))
    pa.default_memory_pool().release_unused()  # what reading took on the way
    return known


def recipe_for(prepared: Prepared, index: Index | None) -> Recipe:
    """What this command asks for, and the texts of prompts and questions that the index holds."""
    texts: dict[Target, str] = {}
    standing: dict[Target, str] = {}
    if index is not None:
        standing = read_standing(index)
        prompts = index.read("captions", ["prompt_id", "prompt"])
        for row in prompts.group_by(prompts.column_names).aggregate([]).to_pylist():
            texts[Target(f"caption:{row['prompt_id']}")] = row["prompt"]
        asked = index.read("answers", ["question_id", "question", "scope"])
        for row in asked.group_by(asked.column_names).aggregate([]).to_pylist():
            texts[Target(f"answer:{row['question_id']}:{row['scope']}")] = row["question"]
    identities = (prepared.model.identity, prepared.encoder.identity)
    return Recipe.of(prepared.config, *identities, prepared.thresholds, texts, standing)


def holds_an_index(url: str) -> bool:
    return open_storage(url).exists(SNAPSHOT)


_FLAGS = {
    "model": "--model",
    "encoder": "--encoder",
    "prune": "--prune",
    "p": "--p",
    "sampling": "--sampling",
    "max_new_tokens": "--max-new-tokens",
}
"""Fields of the configuration that recipes are made of, and how they are given."""


def refuse_conflicts(plan: Plan, index: Index, config: IndexConfig) -> None:
    """A mistyped nightly flag must not redo an archive. Names the flags that differ from the last run's."""
    if plan.conflicts:
        stages = ", ".join(f"{n} clips from `{stage}`" for stage, n in sorted(plan.conflicts.items()))
        earliest = min(plan.conflicts, key=KINDS.index)
        raise UsageError(
            f"this command's recipe differs from the index's own{_differing(index, config)} and would redo {stages}; "
            f"if that is meant, add --redo {earliest}; if not, use the flags the index was made with"
        )


def _differing(index: Index, config: IndexConfig) -> str:
    """The flags whose value the last run of jobs.index had otherwise."""
    try:
        last = last_config(index)
    except UsageError:  # no run of this version finished: there is nothing to compare with
        return ""
    pairs = [(flag, getattr(config, name), getattr(last, name)) for name, flag in _FLAGS.items()]
    found = [f"{flag} {mine} here, {theirs} there" for flag, mine, theirs in pairs if mine != theirs]
    return f" ({'; '.join(found)})" if found else " (the model's or encoder's files, or the thresholds, changed)"


def refuse_other_encoder(prepared: Prepared, index: Index) -> None:
    """One encoder per index: another drops the vectors of every video, those of other roots too."""
    holds, asked = index.snapshot(), prepared.encoder.identity.id
    if holds.encoder is None or holds.encoder.encoder_id == asked or prepared.config.redo in ("sample", "embed"):
        return
    if n_clips := holds.n_rows("clips"):
        raise UsageError(
            f"the index holds {n_clips} clips with vectors of {holds.encoder.encoder_id}, this command brings {asked}; "
            "if all of them are to be made again, add --redo embed; if not, use the encoder the index was made with"
        )


def plan_line(plan: Plan, n_listed: int) -> str:
    reasons: dict[str, int] = {}
    for todo in plan.todo:
        reasons[todo.reason] = reasons.get(todo.reason, 0) + 1
    parts = [f"{n} {reason}" for reason, n in sorted(reasons.items())]
    for n, what in (
        (len(plan.refused), "refused"),
        (len(plan.quarantine), "quarantined"),
        (len(plan.deleted), "gone"),
        (plan.standing, "failed earlier and unchanged"),
    ):
        parts += [f"{n} {what}"] if n else []
    return f"{n_listed} videos listed: {', '.join([*parts, f'{plan.unchanged} unchanged'])}"


def newest_first(todo: Sequence[Todo], prepared: Prepared) -> list[Todo]:
    rows = np.array([t.row for t in todo], np.int64)
    modified_us = prepared.listing.table["modified_us"].take(rows).to_numpy()
    return [todo[at] for at in np.lexsort((rows, -modified_us))]
