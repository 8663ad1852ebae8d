"""Find segments by words, in the encoder's space.

    python -m jobs.search --index INDEX "a red circle"
    python -m jobs.search --index INDEX "a dog on a beach" --top 5 --where "name LIKE '2026%' AND start_s > 60" --json

Reads only; takes no lock. A score is the dot product of the text's vector and the segment's mean frame vector, the
paper's relevance; z says how many standard deviations it lies above the mean of all searched segments, which compares
across queries. Of segments that look alike the best is shown, and videos that are no longer in the archive are not.
Exit codes: 0 done, also when nothing was found; 2 bad usage, one line, before any work.
"""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields

from jobs import cli
from jobs.cli import BUILTIN_WARNING
from pipeline.errors import UsageError
from pipeline.index.snapshot import Index
from pipeline.ledger.progress import say_plainly
from pipeline.reading.finding import Finder
from pipeline.reading.search import Found, Hit


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(lambda: _search(_parser().parse_args(argv)))


def _search(args: argparse.Namespace) -> int:
    if not args.text.strip():
        raise UsageError("an empty text was given; expected some words")
    options = cli.search_options(args)
    finder = Finder(Index.open(args.index), args.encoder, args.thresholds)
    if finder.is_cut(args.text):
        print("note: the text is longer than the encoder reads; its end was left out", file=sys.stderr)
    if args.print_vector:
        print(json.dumps([float(x) for x in finder.vector(args.text)]))
        return 0
    found = finder.find(args.text, options)
    _print(found, finder.thresholds.tau_t, args)
    sys.stdout.flush()
    if finder.is_builtin:
        say_plainly(f"note: {BUILTIN_WARNING}")
    return 0


def _print(found: Found, tau_t: float, args: argparse.Namespace) -> None:
    if args.json:
        print(json.dumps({"query": args.text, "n_searched": found.n_searched, "hits": [asdict(h) for h in found.hits]}))
    elif args.csv:
        writer = csv.DictWriter(sys.stdout, [field.name for field in fields(Hit)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(hit) for hit in found.hits)
    else:
        print("\n".join(_lines(found, tau_t, "alike" if args.merge is None else "beside it")))


def _lines(found: Found, tau_t: float, others: str) -> list[str]:
    """A table for people. Control characters of file names are shown, not obeyed."""
    lines = [f"{'':>3}  {'score':>6} {'z':>5}  {'time':<21} {'video'}"] if found.hits else []
    for hit in found.hits:
        span = f"{_clock(hit.start_s)} - {_clock(hit.end_s)}"
        similar = f"  (+{hit.n_similar} {others})" if hit.n_similar else ""
        weak = "  weak" if hit.weak else ""
        name = "".join(c if c.isprintable() else "�" for c in hit.label)
        lines.append(f"{hit.rank:>3}. {hit.score:>6.3f} {hit.z:>5.1f}  {span:<21} {name}{similar}{weak}")
    lines.append(
        f"{len(found.hits)} of {found.n_searched:,} segments searched; weak: below {tau_t:g}, this encoder's "
        "threshold for being about the text"
    )
    return lines


def _clock(seconds: float) -> str:
    """1:02:03.5, or 02:03.5 below an hour."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}:" if hours else "") + f"{minutes:02d}:{rest // 10:02d}.{rest % 10}"


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("search", __doc__)
    parser.add_argument(
        "text",
        help="what to look for, in words: `red circle` is read as `a photo of red circle`, since encoders were trained "
        "on captions; a text that ends in . ? or ! is read as it stands",
    )
    parser.add_argument("--index", required=True, help="folder or s3:// prefix of the index")
    cli.add_search_options(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    form.add_argument("--csv", action="store_true", help="CSV with a header instead of a table")
    form.add_argument(
        "--print-vector",
        action="store_true",
        help="print the text's unit vector as JSON, for search() in SQL, and stop",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
