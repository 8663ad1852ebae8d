"""Ask an index in SQL: its tables and views in DuckDB, the answer as a table, CSV or JSON.

    python -m jobs.query --index INDEX "SELECT name, status FROM videos"
    python -m jobs.query --index INDEX "FROM captioned WHERE caption LIKE '%boat%'" --csv > boats.csv

The views are those of INDEX/views.sql (docs/querying.md). Reads only, takes no lock, and needs no DuckDB shell.
"""

import argparse
import sys
from collections.abc import Sequence

from jobs import cli
from pipeline.reading.sql import Output, run_sql


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    return cli.run(lambda: _query(args))


def _query(args: argparse.Namespace) -> int:
    output: Output = "csv" if args.csv else "json" if args.json else "table"
    print(run_sql(args.index, args.sql, output), end="")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("query", __doc__)
    parser.add_argument("sql", metavar="SQL", help="one SELECT in DuckDB's SQL, over the tables and views of the index")
    parser.add_argument("--index", required=True, help="folder or s3:// prefix of the index")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="all rows as CSV (default: a table of the first 1,000 rows)")
    form.add_argument("--json", action="store_true", help="all rows, one JSON object per line")
    return parser


if __name__ == "__main__":
    sys.exit(main())
