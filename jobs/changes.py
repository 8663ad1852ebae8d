"""What the last run changed, or all runs since one: new, changed, deleted and failed videos, new captions and answers.

    python -m jobs.changes --index INDEX
    python -m jobs.changes --index INDEX --since 20261124T020000-1f2e3d4c --json
    python -m jobs.changes --index INDEX --since 20261124

Reads only; takes no lock. What a later run did again is counted there alone.
Exit codes: 0 done, also when nothing changed; 2 bad usage, one line, before any work.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from jobs import cli
from pipeline.index.snapshot import Index
from pipeline.reading.changes import KINDS, Change, changes_since


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(lambda: _changes(_parser().parse_args(argv)))


def _changes(args: argparse.Namespace) -> int:
    found = changes_since(Index.open(args.index), args.since)
    if args.json:
        print(json.dumps([asdict(change) for change in found]))
    else:
        print("\n".join(_lines(found, args.top)))
    return 0


def _lines(found: Sequence[Change], most: int) -> list[str]:
    counts = Counter(change.kind for change in found)
    runs = sorted({change.run_id for change in found})
    counted = ", ".join(f"{counts[kind]:,} {kind}" for kind in KINDS if counts[kind])
    lines = [f"{counted or 'nothing changed'}" + (f" ({', '.join(runs)})" if runs else "")]
    for kind in KINDS:
        mine = [change for change in found if change.kind == kind]
        for change in mine[:most]:
            detail = "" if change.detail is None else f"  {cli.plain(change.detail)}"
            lines.append(f"  {kind:<9} {cli.plain(change.path)}{detail}")
        if len(mine) > most:
            lines.append(f"  {kind:<9} and {len(mine) - most:,} more: --top {len(mine)} or --json shows them")
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("changes", __doc__)
    parser.add_argument("--index", required=True, help="folder or s3:// prefix of the index")
    parser.add_argument(
        "--since", metavar="RUN", help="runs after this run_id or date (default: the last run that changed anything)"
    )
    parser.add_argument("--top", type=int, default=20, metavar="N", help="at most N videos of each kind (default: 20)")
    parser.add_argument("--json", action="store_true", help="all of it as one JSON list")
    return parser


if __name__ == "__main__":
    sys.exit(main())
