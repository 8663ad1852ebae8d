"""Try failed, quarantined and partial videos again, with the configuration of the index's last jobs.index run.

Those videos alone: new and changed files beside them wait for jobs.index.

    python -m jobs.retry --index INDEX
    python -m jobs.retry --index INDEX --where "error_class = 'DecodeTimeout'" --dry-run

Exit codes are those of jobs.index; 0 also when nothing matches.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jobs import cli
from jobs.index import add_where_it_runs, cluster_of, say_end, stop_on_signals
from pipeline.execution.executors import on_ray
from pipeline.execution.workers import Executor
from pipeline.index.snapshot import Index
from pipeline.ledger.progress import Say
from pipeline.ledger.retry import prepare_retry, to_retry
from pipeline.run import run_index


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("retry", __doc__)
    parser.add_argument("--index", required=True, help="folder or s3:// prefix of the index")
    parser.add_argument(
        "--where",
        metavar="SQL",
        help="only videos for which this is true: one condition on columns of the table videos (default: all that "
        "failed, were quarantined or are partial)",
    )
    parser.add_argument("--dry-run", action="store_true", help="say which videos would be tried; open none")
    parser.add_argument("--thresholds", type=Path, metavar="FILE", help="the encoder's thresholds, if the run had them")
    add_where_it_runs(parser)
    return parser


def main(argv: Sequence[str] | None = None, executor: Executor | None = None) -> int:
    args = _parser().parse_args(argv)
    say = cli.say_of(args)
    return cli.run(lambda: _retry(args, say, executor), say)


def _retry(args: argparse.Namespace, say: Say, executor: Executor | None) -> int:
    index = Index.open(args.index)
    chosen = to_retry(index, args.where)
    if not chosen.num_rows:
        print("no failed, quarantined or partial video matches: nothing to retry")
        return 0
    classes = Counter(chosen["error_class"].to_pylist())
    print(
        f"{chosen.num_rows} videos to try again: "
        + ", ".join(f"{n} {name or 'partly decoded'}" for name, n in sorted(classes.items(), key=str))
    )
    if args.dry_run:
        print("\n".join(f"  {uri}" for uri in sorted(chosen["uri"].to_pylist())))
        return 0
    prepared = prepare_retry(index, chosen, args.thresholds)
    if not prepared.listing.table.num_rows:
        print("none of them is in the archive now: nothing to retry")
        return 0
    stop_on_signals(say)
    report = run_index(
        prepared, executor or on_ray(cluster_of(args)), "retry", say, frozenset(chosen["video_id"].to_pylist())
    )
    say_end(report, say)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
