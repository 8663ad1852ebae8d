"""The whole story of a run, in order: list, plan, probe, decode, embed, describe, stage, commit, report.

A run goes in waves. Each wave probes its videos, cuts them into items, streams the items through decode -> describe ->
stage (execution/on_ray.py, the only file that knows Ray; stages.py, what each worker does), and ends in a commit.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipeline.config import Recipe
from pipeline.errors import UsageError
from pipeline.execution.pools import ClusterOptions
from pipeline.index.commits import roll_forward
from pipeline.index.compaction import compact
from pipeline.index.lock import index_lock
from pipeline.index.runs import new_run_id
from pipeline.index.snapshot import SNAPSHOT, Index, storage_trouble
from pipeline.index.staging import clear_staging, staged_keys, staged_meta
from pipeline.index.standing import read_standing
from pipeline.index.thresholds import keep_thresholds
from pipeline.index.views import publish_views
from pipeline.items.item import Item, Receipt, receipt_of
from pipeline.ledger.estimate import Ratios, estimate, probed_hours, ratios_of
from pipeline.ledger.plan import PLAN_COLUMNS, Plan, Todo, known_videos, plan_run
from pipeline.ledger.prepare import Prepared
from pipeline.ledger.progress import Progress, Say
from pipeline.ledger.run_report import RunReport, Stopwatch, check_books, publish
from pipeline.ledger.writer import Writer
from pipeline.models.ready import make_ready
from pipeline.storage.places import open_storage
from pipeline.types import KINDS, Target

if TYPE_CHECKING:
    from pipeline.execution.on_ray import Workers

WAVE_VIDEOS = 1000
"""A wave loads each model once and ends in a commit: large enough to make loading cheap, small enough for a driver."""


def run_index(
    prepared: Prepared, cluster: ClusterOptions, command: str, say: Say, retry: frozenset[str] = frozenset()
) -> RunReport:
    """Index what is new or changed, and try the videos of `retry` again. Returns the report; its row is in `runs`."""
    config, listing, watch, run_id = prepared.config, prepared.listing, Stopwatch(), new_run_id()
    index = Index.create(config.output)
    with storage_trouble(index), index_lock(index.storage, say) as check_lock:
        if (finished := roll_forward(index)) is not None:
            say(f"finished commit {finished}, which an earlier run left open")
        recipe = recipe_for(prepared, index)
        plan = plan_run(listing.table, ledger_of(index), recipe, config.redo, listing.covers, retry)
        refuse_conflicts(plan)
        refuse_other_encoder(prepared, index)
        keep_thresholds(index, prepared.encoder.identity.id, prepared.thresholds, prepared.origin)
        for complaint in (complaint for root in listing.roots for complaint in root.complaints):
            say(f"warning: {complaint}; what is missing there is not taken for deleted")
        say(plan_line(plan, listing.table.num_rows), event="plan", run_id=run_id)
        writer = Writer(index, prepared, recipe, run_id, watch, check_lock)
        writer.commit_without_work(plan)
        n_left = _work(plan, writer, cluster, say) if plan.todo else 0
        writer.finish()
        if plan.todo and not n_left and not retry:  # else what a crash staged of other videos waits for its turn
            clear_staging(index.storage)
        if not plan.is_empty:
            check_lock()
            if compact(index) is not None:
                say("compacted: many small files of a table became few")
        check_books(index, listing)
        report = RunReport.of(run_id, command, config, index, listing, watch, writer.n_failed, len(plan.todo))
        publish(index, report)
        publish_views(index, prepared.thresholds.tau_s)
    return report


def dry_run(prepared: Prepared, probe: bool = False) -> str:
    """What `run_index` would do and why, as text. Takes no lock and writes nothing; only `probe` opens videos."""
    table, ratios = prepared.listing.table, None
    try:
        index = Index.open(prepared.config.output)
        known, recipe, ratios = ledger_of(index), recipe_for(prepared, index), ratios_of(index)
    except UsageError:
        if holds_an_index(prepared.config.output):
            raise
        known, recipe = known_videos(()), recipe_for(prepared, None)
    plan = plan_run(table, known, recipe, prepared.config.redo, prepared.listing.covers)
    lines = [plan_line(plan, table.num_rows)]
    sizes = table["size_bytes"].to_pylist()
    for reason in sorted({todo.reason for todo in plan.todo}):
        mine = [todo for todo in plan.todo if todo.reason == reason]
        stages = sorted({target.kind for todo in mine for target in todo.targets})
        read = sum(sizes[todo.row] for todo in mine)
        lines.append(f"  {reason:<9} {len(mine):>7} videos {read / 1e6:>10.1f} MB   {', '.join(stages)}")
        lines.append(f"            {_cost(prepared, mine, ratios, probe)}")
    for stage, n_clips in sorted(plan.conflicts.items()):
        lines.append(f"  refused   {n_clips:>7} clips of another recipe: would need --redo {stage}")
    return "\n".join(lines)


def _cost(prepared: Prepared, mine: Sequence[Todo], ratios: Ratios | None, probe: bool) -> str:
    rows = prepared.listing.table.take([todo.row for todo in mine])
    n_prompts = max(sum(bool(target.id) for target in todo.targets) for todo in mine)
    hours, unread = probed_hours(rows, prepared.config) if probe else (None, 0)
    line = estimate(ratios, rows["size_bytes"].to_pylist(), n_prompts, hours)
    return f"{line}; {unread} have no header that can be read" if unread else line


def _work(plan: Plan, writer: Writer, cluster: ClusterOptions, say: Say) -> int:
    """Waves of videos, newest first, until none is left or the budget is spent. Returns how many are left."""
    from pipeline.execution.on_ray import Workers  # seconds of import that a run with nothing to do never pays

    config, watch = writer.prepared.config, writer.watch
    make_ready((writer.prepared.encoder, *([writer.prepared.model] if writer.recipe.texts else [])), say)
    order = _newest_first(plan.todo, writer.prepared)
    taken, left = order[: config.limit], order[config.limit :] if config.limit is not None else []
    cut: list[Todo] = []
    with Workers(cluster, config, writer.setup()) as workers, Progress(len(taken), say) as progress:
        say(f"pools: {workers.pools}")
        progress.staffed(workers.pools.of_stages)
        watch.begin_work(workers.pools)
        deadline = watch.deadline(config, workers.pools)
        while taken and not _is_past(deadline):
            wave, taken = taken[:WAVE_VIDEOS], taken[WAVE_VIDEOS:]
            cut = _run_wave(wave, writer, workers, progress, deadline)
        watch.end_work()
    if left := [*cut, *taken, *left]:
        spent = "the budget is spent; " if _is_past(deadline) else ""
        say(f"{spent}{len(left)} videos are left for a later run")
        writer.commit_pending(left)
    return len(left)


def _run_wave(
    wave: Sequence[Todo], writer: Writer, workers: "Workers", progress: Progress, deadline: float | None
) -> list[Todo]:
    """One wave and its commit. What the deadline cut off is returned; its finished items stay staged."""
    work = {w.source.video_id: w for w in writer.begin(wave)}
    for probed in workers.probe([w.source for w in work.values() if w.todo.mode == "index"]):
        work[probed.source.video_id].probed = probed
    writer.cut(list(work.values()))
    for w in work.values():
        if not w.items:
            progress.add(1, 0, failed=int(w.probed is not None))
    for receipt in _until(deadline, staged_or_run([item for w in work.values() for item in w.items], writer, workers)):
        w = work[receipt.video_id]
        w.receipts.append(receipt)
        progress.worked(receipt.seconds)
        is_last = len(w.receipts) == len(w.items)
        progress.add(int(is_last), receipt.n_clips, failed=int(is_last and all(r.failure for r in w.receipts)))
    done = {video_id: w for video_id, w in work.items() if len(w.receipts) == len(w.items)}
    asked = list(writer.questions(list(done.values()), workers.questions))
    n_asked = Counter(item.source.video_id for item in asked)
    for receipt in _until(deadline, staged_or_run(asked, writer, workers)):
        work[receipt.video_id].answers.append(receipt)
        progress.worked(receipt.seconds)
    done = {video_id: w for video_id, w in done.items() if len(w.answers) == n_asked[video_id]}
    statuses = writer.commit_wave(list(done.values()))
    workers.count_videos(statuses)
    return [w.todo for video_id, w in work.items() if video_id not in done]


def _until(deadline: float | None, receipts: Iterator[Receipt]) -> Iterator[Receipt]:
    """Receipts until the deadline has passed: what is on its way then is given up."""
    for receipt in receipts:
        yield receipt
        if _is_past(deadline):
            return


def _is_past(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


def staged_or_run(items: Sequence[Item], writer: Writer, workers: "Workers") -> Iterator[Receipt]:
    """Receipts of `items` in any order. What an earlier run staged is not done again."""
    storage = writer.index.storage
    staged, missing = staged_keys(storage), []
    for item in items:
        receipt = None
        if item.key in staged:
            receipt = receipt_of(item, staged_meta(storage, item.key))
        if receipt is None or receipt.failure is not None:  # what failed in part then may be whole now
            missing.append(item)
        else:
            yield receipt
    yield from workers.run_items(missing)


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


def refuse_conflicts(plan: Plan) -> None:
    """A mistyped nightly flag must not redo an archive."""
    if plan.conflicts:
        stages = ", ".join(f"{n} clips from `{stage}`" for stage, n in sorted(plan.conflicts.items()))
        earliest = min(plan.conflicts, key=KINDS.index)
        raise UsageError(
            f"this command's recipe differs from the index's own and would redo {stages}; "
            f"if that is meant, add --redo {earliest}; if not, use the flags the index was made with"
        )


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


def _newest_first(todo: Sequence[Todo], prepared: Prepared) -> list[Todo]:
    rows = np.array([t.row for t in todo], np.int64)
    modified_us = prepared.listing.table["modified_us"].take(rows).to_numpy()
    return [todo[at] for at in np.lexsort((rows, -modified_us))]
