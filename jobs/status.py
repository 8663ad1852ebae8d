"""Where an index stands: videos by status, failures by class, open work, the last runs.

    python -m jobs.status --index INDEX [--json]
    python -m jobs.status --index INDEX --watch

Reads only, and takes no lock. --watch says every few seconds what a live run is at, until it ends: for each pool of
workers how many there are, how many of them work, what waits, how fast it goes, and which pool limits the run.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs import cli
from pipeline.index.commit_plan import open_commit
from pipeline.index.snapshot import Index
from pipeline.index.staging import staged_keys
from pipeline.ledger.progress import PROGRESS
from pipeline.types import STATUSES

WATCH_EVERY_S = 2.0
SILENT_S = 60.0
"""A run says something every few seconds: numbers older than this were left behind by a crash."""

_RUN_COLUMNS = ["run_id", "started_at", "finished_at", "command", "listed", "ignored", "outcome", "exit_code"]


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("status", __doc__)
    parser.add_argument("--index", required=True, help="folder or s3:// prefix of the index")
    parser.add_argument("--runs", type=int, default=5, help="how many of the last runs to show (default: 5)")
    parser.add_argument("--json", action="store_true", help="one JSON object for scripts, instead of lines for people")
    parser.add_argument("--watch", action="store_true", help="follow a live run until it ends")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    return cli.run(lambda: _watch(args.index) if args.watch else _status(args.index, args.runs, args.json))


def _watch(url: str) -> int:
    """A line each time the run has left new numbers."""
    index, before = Index.open(url), None
    while (facts := live_run(index)) is not None:
        if facts["at"] != before:
            before = facts["at"]
            print(live_line(facts), flush=True)
        time.sleep(WATCH_EVERY_S)
    if before is None:
        print("no run is at work on this index")
    return 0


def live_run(index: Index) -> dict[str, Any] | None:
    """What a live run left of itself last; None when there is none, or none that said anything for a while."""
    try:
        facts: dict[str, Any] = json.loads(index.storage.read_bytes(PROGRESS))
    except (FileNotFoundError, ValueError):
        return None
    return facts if time.time() - facts["at"] < SILENT_S else None


def live_line(facts: dict[str, Any]) -> str:
    pools = [
        f"{pool} {load['busy']}/{load['workers']} busy, {load['waiting']} waiting, {load['per_s']:g}/s"
        f"{' (limits)' if facts['limits'] == pool else ''}"
        for pool, load in facts["stages"].items()
    ]
    left = "" if facts["left_s"] is None else f", about {facts['left_s']:.0f} s left"
    return (
        f"{facts['videos']}/{facts['total']} videos, {facts['clips']} clips, {facts['failed']} failed, "
        f"{facts['elapsed_s']:.0f} s elapsed{left}; {'; '.join(pools)}"
    )


def _status(url: str, n_runs: int, as_json: bool) -> int:
    status = status_of(Index.open(url), n_runs)
    print(json.dumps(status, default=str) if as_json else "\n".join(_lines(status)))
    return 0


def status_of(index: Index, n_runs: int) -> dict[str, Any]:
    """Counts, open work and the last runs, of one snapshot."""
    snapshot = index.snapshot()
    videos = index.read("videos", ["status", "error_class"])
    failed = videos.filter(pc.field("error_class").is_valid())
    runs = index.read("runs", _RUN_COLUMNS).sort_by([("started_at", "descending")]).slice(0, n_runs)
    pending = open_commit(index, snapshot)
    return {
        "index": index.url,
        "commit": snapshot.commit,
        "open_commit": pending.commit if pending else None,
        "staged_items": len(staged_keys(index.storage)),
        "encoder": snapshot.encoder.encoder_id if snapshot.encoder else None,
        "videos": {status: _counts(videos["status"]).get(status, 0) for status in STATUSES},
        "error_classes": _counts(failed["error_class"]),
        "rows": {table: snapshot.n_rows(table) for table in sorted(snapshot.files)},
        "runs": runs.to_pylist(),
    }


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(column).to_pylist()}


def _lines(status: dict[str, Any]) -> list[str]:
    listed = sum(n for name, n in status["videos"].items() if name != "deleted")
    lines = [
        f"{status['index']} at commit {status['commit']}, encoder {status['encoder'] or 'not chosen yet'}",
        f"{listed:,} videos: " + ", ".join(f"{n:,} {name}" for name, n in status["videos"].items() if n),
        "rows: " + (", ".join(f"{n:,} {table}" for table, n in status["rows"].items()) or "none"),
    ]
    if status["error_classes"]:
        lines.append("failures: " + ", ".join(f"{n:,} {name}" for name, n in sorted(status["error_classes"].items())))
    if status["open_commit"] is not None:
        lines.append(f"commit {status['open_commit']} is open: the next run finishes it")
    if status["staged_items"]:
        lines.append(f"{status['staged_items']:,} staged items wait for the next run")
    for entry in status["runs"]:
        took_s = (entry["finished_at"] - entry["started_at"]).total_seconds() if entry["finished_at"] else None
        took = f"{took_s:,.0f} s" if took_s is not None else "not finished"
        lines.append(
            f"run {entry['run_id']}: {entry['command']}, {took}, {entry['listed'] or 0:,} listed, "
            f"{entry['ignored'] or 0:,} ignored, {entry['outcome']} (exit {entry['exit_code']})"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
