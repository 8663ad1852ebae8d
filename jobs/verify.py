"""Audit an index: books, keys, references, times, vectors, files and schemas. Exit 4 when something is wrong.

python -m jobs.verify --index INDEX
"""

import argparse
import sys
from collections.abc import Sequence

from jobs.cli import Parser, run
from pipeline.errors import BooksDoNotBalance, UsageError
from pipeline.index.snapshot import Index
from pipeline.index.verify import RULES, verify


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m jobs.verify",
        description="Read every table again and check what it promises. Exit codes: 0 all is right, 2 no index there, "
        "4 something is wrong (each finding is one line on stderr).",
        epilog="Rules about rows: " + "; ".join(RULES) + ".",
        allow_abbrev=False,
    )
    parser.add_argument("--index", required=True, help="folder or s3:// prefix of the index")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return run(lambda: _verify(args.index))


def _verify(url: str) -> int:
    audit = verify(Index.open(url))
    if not audit.n_rows["videos"] and not audit.wrong:
        raise UsageError(f"{url} is empty: no run has committed anything yet")
    print(", ".join(f"{n:,} {table}" for table, n in audit.n_rows.items()))
    for note in audit.notes:
        print(f"note: {note}")
    for finding in audit.wrong:
        print(f"wrong: {finding}", file=sys.stderr)
    if audit.wrong:
        raise BooksDoNotBalance(f"{len(audit.wrong)} rules are broken in {url}")
    print("every rule holds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
