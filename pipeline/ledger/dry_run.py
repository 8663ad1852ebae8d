"""What a run would do and why, as text: --dry-run."""

from collections.abc import Sequence

from pipeline.errors import UsageError
from pipeline.index.snapshot import Index
from pipeline.ledger.estimate import Ratios, estimate, probed_hours, ratios_of
from pipeline.ledger.owed import holds_an_index, ledger_of, plan_line, recipe_for
from pipeline.ledger.plan import Todo, known_videos, plan_run
from pipeline.ledger.prepare import Prepared


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
