"""Audit an index: read every table again and check totals, keys, references, times, vectors, files and schemas.

    python -m jobs.verify --index INDEX

Exit codes: 0 every rule holds; 2 there is no index; 4 something is wrong, each finding one line on stderr.
"""

import argparse
import sys
from collections.abc import Sequence

from jobs import cli
from pipeline.errors import BooksDoNotBalance, UsageError
from pipeline.index.snapshot import Index
from pipeline.index.verify import RULES, verify


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("verify", __doc__)
    parser.epilog = "Rules about rows: " + "; ".join(RULES) + "."
    parser.add_argument("--index", required=True, help="folder or s3:// prefix of the index")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    return cli.run(lambda: _verify(args.index))


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
