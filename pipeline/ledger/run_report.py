"""What a run did: the numbers printed at its end, its row in `runs`, and the check that the books balance."""

import json
import shlex
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.archive.labels import path_in_root
from pipeline.archive.listing import Listing
from pipeline.config import IndexConfig
from pipeline.errors import BooksDoNotBalance, UsageError
from pipeline.execution.pools import Pools
from pipeline.index.runs import record_run, videos_by_status
from pipeline.index.snapshot import Index
from pipeline.items.item import Probed, Receipt
from pipeline.types import STATUSES

SHOWN_FAILURES = 5
POOL_STAGES = {"decode": ("probe", "decode"), "describe": ("embed", "describe")}
PACKAGES = ("torch", "transformers", "ray", "pyarrow", "av", "decord", "s3fs")


@dataclass
class Stopwatch:
    """Items and seconds of work by stage, summed over all workers, and how long workers were there."""

    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    items: Counter[str] = field(default_factory=Counter)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    worker_s: defaultdict[str, float] = field(
        default_factory=lambda: defaultdict(float)
    )  # pool -> seconds that its workers were there
    gpu_s: float = 0.0  # seconds of GPUs held
    work_s: float = 0.0  # wall time from the first worker to the last receipt
    _looked: float | None = None

    def add(self, stage: str, seconds: float) -> None:
        self.items[stage] += 1
        self.seconds[stage] += seconds

    def add_video(self, probed: Probed | None, receipts: Iterable[Receipt]) -> None:
        """What a finished video took, what an earlier run staged of it included."""
        if probed is not None:
            self.add("probe", probed.seconds)
        for receipt in receipts:
            for stage, seconds in receipt.seconds.items():
                self.add(stage, seconds)

    def look(self, workers: Mapping[str, int], gpus_each: float) -> None:
        """Called while work goes on, with the workers of each pool: those it found are counted since the last look."""
        now = time.monotonic()
        passed = 0.0 if self._looked is None else now - self._looked
        self._looked = now
        self.work_s += passed
        self.gpu_s += passed * workers.get("describe", 0) * gpus_each
        for pool, n in workers.items():
            self.worker_s[pool] += passed * n

    def is_spent(self, config: IndexConfig) -> bool:
        """Whether the budget is used up: of time, or of GPUs held times how long."""
        of_time = config.budget_s is not None and self.work_s >= config.budget_s
        return of_time or (config.budget_gpu_s is not None and self.gpu_s >= config.budget_gpu_s)

    def busy(self) -> dict[str, float]:
        """Share of their time that each pool's workers were busy; the highest is what limits the run."""
        return {
            pool: sum(self.seconds[stage] for stage in stages) / self.worker_s[pool]
            for pool, stages in POOL_STAGES.items()
            if self.worker_s[pool] > 0
        }


def refuse_gpu_budget(config: IndexConfig, pools: Pools) -> None:
    if config.budget_gpu_s is not None and not pools.describe_gpus:
        raise UsageError("--gpu-budget given, but this run holds no GPU; expected --budget, a time")


@dataclass(frozen=True)
class RunReport:
    """One run, told in numbers."""

    run_id: str
    command: str
    config: IndexConfig
    listed: int
    ignored: int
    counts: dict[str, int]
    watch: Stopwatch
    finished_at: datetime
    n_failed: int
    n_tried: int
    outcome: str = "ok"
    failures: tuple[str, ...] = ()  # the first of those newly failed: path and why

    @classmethod
    def of(
        cls,
        run_id: str,
        command: str,
        config: IndexConfig,
        index: Index,
        listing: Listing,
        watch: Stopwatch,
        n_failed: int,
        n_tried: int,
    ) -> "RunReport":
        return cls(
            run_id=run_id,
            command=command,
            config=replace(config, roots=tuple(root.uri for root in listing.roots) or config.roots),  # absolute
            listed=listing.table.num_rows,
            ignored=listing.ignored,
            counts=videos_by_status(index),
            watch=watch,
            finished_at=datetime.now(UTC),
            n_failed=n_failed,
            n_tried=n_tried,
            failures=_failures_of(index, run_id),
        )

    @property
    def n_allowed(self) -> int:
        """Videos that may newly fail: --max-failed, by default half of those tried and at least 20."""
        return max(20, self.n_tried // 2) if self.config.max_failed is None else self.config.max_failed

    @property
    def exit_code(self) -> int:
        """3 when more videos newly failed than may."""
        return 3 if self.n_failed > self.n_allowed else 0

    @property
    def wall_s(self) -> float:
        return (self.finished_at - self.watch.started_at).total_seconds()

    def as_json(self) -> str:
        """One line for whoever watches over the nights: what to raise an alert on, and no more."""
        return json.dumps(
            {
                "run_id": self.run_id,
                "exit_code": self.exit_code,
                "index": self.config.output,
                "listed": self.listed,
                "ignored": self.ignored,
                "tried": self.n_tried,
                "newly_failed": self.n_failed,
                "videos": self.counts,
                "seconds": round(self.wall_s, 1),
                "busy": {pool: round(share, 3) for pool, share in self.watch.busy().items()},
            }
        )

    def __str__(self) -> str:
        wall_s = self.wall_s
        counts = ", ".join(f"{n} {status}" for status, n in self.counts.items() if n)
        stages = "\n".join(
            f"  {stage:<9} {self.watch.items[stage]:>6} items {seconds:>9.1f} s  {seconds / wall_s:>5.0%} of one worker"
            for stage, seconds in self.watch.seconds.items()
        )
        busy = self.watch.busy()
        shares = ", ".join(f"{pool} {share:.0%} busy" for pool, share in busy.items())
        pools = f"  pools: {shares}; {max(busy, key=lambda pool: busy[pool])} limits" if busy else ""
        stages = "\n".join(filter(None, (stages, pools)))
        return (
            f"run {self.run_id}: {self.listed} videos listed, {self.ignored} other files ignored, {wall_s:.1f} s\n"
            f"index {self.config.output}: {counts or 'empty'}"
            + (f"\n{stages}" if stages else "")
            + "".join(f"\n{line}" for line in self._about_failures())
        )

    def _about_failures(self) -> Iterable[str]:
        """Which videos newly failed, the first of them; where the rest stands; and why the exit code is 3."""
        yield from (f"  failed: {failure}" for failure in self.failures[:SHOWN_FAILURES])
        if len(self.failures) > SHOWN_FAILURES:
            wanted = f"SELECT path, error_class, message FROM errors WHERE run_id = '{self.run_id}'"
            yield f'  all of them: python -m jobs.query --index {shlex.quote(self.config.output)} "{wanted}"'
        if self.exit_code == 3:
            yield f"exit 3: {self.n_failed} videos newly failed; --max-failed allows {self.n_allowed}"


def _failures_of(index: Index, run_id: str) -> tuple[str, ...]:
    """Path, class and message of a few videos that failed in this run, by path; one more than are shown."""
    mine = pc.field("run_id") == run_id
    failed = mine & pc.field("status").isin(["failed", "quarantined"])
    videos = {row["video_id"]: row for row in index.read("videos", ["video_id", "uri", "root"], failed).to_pylist()}
    said = []
    for row in index.read("errors", ["video_id", "error_class", "message"], mine).to_pylist():
        if video := videos.pop(row["video_id"], None):
            path = path_in_root(video["uri"], video["root"])
            text = f"{path}: {row['error_class']}: {row['message']}"
            said.append("".join(char if char.isprintable() else " " for char in text)[:200])
    return tuple(sorted(said)[: SHOWN_FAILURES + 1])


def publish(index: Index, report: RunReport) -> None:
    """The run's row in `runs`: one file of its own, so that a run with nothing to do changes nothing else."""
    stages = [
        {"stage": stage, "items": report.watch.items[stage], "seconds": float(seconds)}
        for stage, seconds in report.watch.seconds.items()
    ]
    row = {
        "run_id": report.run_id,
        "started_at": report.watch.started_at,
        "finished_at": report.finished_at,
        "command": report.command,
        "config": report.config.as_json(),
        "listed": report.listed,
        "ignored": report.ignored,
        "counts": report.counts,
        "stages": stages,
        "versions": [{"package": package, "version": version(package)} for package in PACKAGES],
        "outcome": report.outcome,
        "exit_code": report.exit_code,
    }
    record_run(index, row)


def check_books(index: Index, listing: Listing) -> None:
    """Every listed video has exactly one row, and no row has an unknown status. Raises BooksDoNotBalance."""
    ledger = index.read("videos", ["video_id", "status"])
    listed = listing.table["video_id"]
    n_distinct = pc.count_distinct(ledger["video_id"]).as_py()
    missing = pc.sum(pc.invert(pc.is_in(listed, ledger["video_id"].combine_chunks()))).as_py() or 0
    unknown = pc.sum(pc.invert(pc.is_in(ledger["status"], pa.array(STATUSES)))).as_py() or 0
    if n_distinct != ledger.num_rows or missing or unknown:
        raise BooksDoNotBalance(
            f"{listed.length()} videos listed: {missing} have no row, {ledger.num_rows - n_distinct} have more than "
            f"one, {unknown} have no known status"
        )
