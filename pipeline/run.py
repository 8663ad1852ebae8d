"""The whole story of a run, in order: list, plan, probe, decode, embed, describe, stage, commit, report.

A run is one stream (ledger/stream.py): videos flow through workers (execution/), which load their models once, and
finished ones are committed beside the flow (ledger/committer.py).
"""

from pipeline.execution.workers import Executor
from pipeline.index.commits import roll_forward
from pipeline.index.compaction import compact
from pipeline.index.lock import index_lock
from pipeline.index.runs import new_run_id
from pipeline.index.snapshot import Index, storage_trouble
from pipeline.index.staging import clear_staging
from pipeline.index.thresholds import keep_thresholds
from pipeline.index.views import publish_views
from pipeline.ledger.committer import Committer, Pace
from pipeline.ledger.cutter import Cutter
from pipeline.ledger.owed import ledger_of, newest_first, plan_line, recipe_for, refuse_conflicts, refuse_other_encoder
from pipeline.ledger.plan import Plan, plan_run
from pipeline.ledger.prepare import Prepared
from pipeline.ledger.progress import Progress, Say
from pipeline.ledger.run_report import RunReport, Stopwatch, check_books, publish, refuse_gpu_budget
from pipeline.ledger.stream import Staged, Stream
from pipeline.models.ready import make_ready


def run_index(
    prepared: Prepared,
    executor: Executor,
    command: str,
    say: Say,
    retry: frozenset[str] = frozenset(),
    pace: Pace | None = None,
) -> RunReport:
    """Index what is new or changed, and try the videos of `retry` again. Returns the report; its row is in `runs`."""
    config, listing, watch, run_id = prepared.config, prepared.listing, Stopwatch(), new_run_id()
    index = Index.create(config.output)
    with storage_trouble(index), index_lock(index.storage, say) as check_lock:
        if (finished := roll_forward(index)) is not None:
            say(f"finished commit {finished}, which an earlier run left open")
        keep_thresholds(index, prepared.encoder.identity.id, prepared.thresholds, prepared.origin)
        recipe = recipe_for(prepared, index)
        plan = plan_run(listing.table, ledger_of(index), recipe, config.redo, listing.covers, retry)
        refuse_conflicts(plan, index, config)
        refuse_other_encoder(prepared, index)
        for complaint in (complaint for root in listing.roots for complaint in root.complaints):
            say(f"warning: {complaint}; what is missing there is not taken for deleted")
        say(plan_line(plan, listing.table.num_rows), event="plan", run_id=run_id)
        committer = Committer(index, prepared, recipe, run_id, check_lock, pace or Pace())
        committer.commit_without_work(plan)
        n_left = _work(plan, Cutter(index, prepared, recipe), committer, executor, watch, say) if plan.todo else 0
        committer.finish()
        if plan.todo and not n_left and not retry:  # else what a crash staged of other videos waits for its turn
            clear_staging(index.storage)
        if not plan.is_empty:
            check_lock()
            if compact(index) is not None:
                say("compacted: many small files of a table became few")
        check_books(index, listing)
        report = RunReport.of(run_id, command, config, index, listing, watch, committer.n_failed, len(plan.todo))
        publish(index, report)
        publish_views(index, prepared.thresholds.tau_s)
    return report


def _work(plan: Plan, cutter: Cutter, committer: Committer, executor: Executor, watch: Stopwatch, say: Say) -> int:
    """Videos, newest first, until none is left or the budget is spent. Returns how many are left."""
    prepared = committer.prepared
    config = prepared.config
    order = newest_first(plan.todo, prepared)
    taken, left = order[: config.limit], order[config.limit :] if config.limit is not None else []
    staged = Staged(committer.index.storage)
    make_ready((prepared.encoder, *([prepared.model] if committer.recipe.texts else [])), say)
    setup = cutter.setup(committer.run_id)
    with (
        Progress(len(taken), say, committer.index.storage) as progress,
        executor.open(config, setup, progress.say) as workers,
    ):
        refuse_gpu_budget(config, workers.pools)
        stream = Stream(taken, cutter, workers, staged, lambda: watch.is_spent(config))
        for video in stream:
            if video is not None:
                watch.add_video(video.probed, (*video.receipts, *video.answers))
                committer.finished(video)
                progress.finished(video.is_failed)
                continue
            loads = workers.loads()
            watch.look({pool: load.workers for pool, load in loads.items()}, workers.pools.describe_gpus)
            progress.look(loads, stream.n_clips)
            committer.beat(workers.count_videos)
        committer.commit_finished(workers.count_videos)
    if left := [*stream.left, *left]:
        spent = "the budget is spent; " if watch.is_spent(config) else ""
        say(f"{spent}{len(left)} videos are left for a later run")
        committer.commit_pending(left)
    return len(left)
