"""Ask an index something new: answers with evidence, of whole videos or of clips.

    python -m jobs.ask --index INDEX --question "Is there a dog?"
    python -m jobs.ask --index INDEX --question "What colour is the car? {red|green|blue}" --scope clip --top 100
    python -m jobs.ask --index INDEX --questions questions.csv --where "name LIKE '2026-%'" --json

Choices in braces at the end of a question are scored by likelihood instead of being generated. A file of
questions has one a line, or is a .csv with the columns id and text and, if wanted, choices (separated by |). A question
that nothing in a video is relevant to is not put to the model: its row says that it abstained, and how near the nearest
segment came.
What is answered already is not asked again. Answers land in the table `answers`.
Exit codes: 0 done; 2 bad usage, one line, before any work; 5 a live run holds the index.
"""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs import cli
from jobs.cli import BUILTIN_WARNING
from jobs.index import add_where_it_runs, cluster_of
from pipeline.asking.ask import Asking, AskReport, prepare_ask, run_ask
from pipeline.describing.choices import with_choices
from pipeline.errors import UsageError
from pipeline.execution.executors import on_ray
from pipeline.execution.workers import Executor
from pipeline.ledger.progress import Say

SHOWN = 50


def main(argv: Sequence[str] | None = None, executor: Executor | None = None) -> int:
    args = _parser().parse_args(argv)
    say = cli.say_of(args)
    return cli.run(lambda: _ask(args, say, executor), say)


def _ask(args: argparse.Namespace, say: Say, executor: Executor | None) -> int:
    asking = Asking(
        index=args.index,
        questions=tuple([*args.question, *(_questions_in(args.questions) if args.questions else [])]),
        scope=args.scope,
        where=args.where,
        top=args.top,
        standing=args.standing,
        model=args.model,
        abstain_below=args.abstain_below,
        device=args.device,
    )
    prepared = prepare_ask(asking, args.thresholds)
    report = run_ask(asking, prepared, executor or on_ray(cluster_of(args)), say)
    for question in dict.fromkeys(row["question"] for row in report.answers if row["question_truncated"]):
        say(f"note: too long for the encoder, evidence is of its beginning: {_plain(question)}")
    if args.json:
        print(json.dumps({"run_id": report.run_id, "answers": report.answers}))
    else:
        print("\n".join(_lines(report)))
    if prepared.config.model == "builtin":
        say(f"note: {BUILTIN_WARNING}")
    return 0


def _questions_in(path: Path) -> list[str]:
    """One question a line, or the rows of a .csv with id, text and perhaps choices."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--questions {path}: {error}") from error
    if path.suffix.lower() != ".csv":
        return [line.strip() for line in text.splitlines() if line.strip()]
    rows = list(csv.DictReader(text.splitlines()))
    if not rows or not {"id", "text"} <= rows[0].keys():
        raise UsageError(f"--questions {path}: expected a header with id, text and perhaps choices, and rows under it")
    return [_question_of(row, f"--questions {path}, id {row['id']}") for row in rows]


def _question_of(row: dict[str, Any], where: str) -> str:
    if not (row["text"] or "").strip():
        raise UsageError(f"{where}: the text is empty")
    if not (row.get("choices") or "").strip():
        return str(row["text"])
    try:
        return with_choices(row["text"], row["choices"].split("|"))
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _lines(report: AskReport) -> list[str]:
    """Answers for people, by question. Control characters of names and answers are shown, not obeyed."""
    lines, question = [], None
    for row in report.answers[:SHOWN]:
        if row["question"] != question:
            question = row["question"]
            lines.append(_plain(question))
        best = max(row["evidence"], key=lambda e: e["score"], default=None)
        where = "" if best is None else f" at {best['start_s']:g}-{best['end_s']:g} s"
        if row["abstained"]:
            limit = f"below {row['abstain_below']:.2f}"
            said = f"(abstained: nothing relevant enough; {row['relevance']:.2f}{where} is {limit})"
        else:
            seen = f", best seen{where}" if where and not _says_no(row["answer"]) else ""
            said = f"{_plain(row['answer'])}  (relevance {row['relevance']:.2f}{seen})"
        span = f" {row['start_s']:g}-{row['end_s']:g} s" if row["clip_id"] else ""
        lines.append(f"  {_plain(row['name'])}{span}: {said}")
    if len(report.answers) > SHOWN:
        lines.append(f"  and {len(report.answers) - SHOWN:,} more: --json prints all, the table `answers` holds them")
    unread = f", {report.failed} videos could not be read (see `errors`)" if report.failed else ""
    lines.append(f"run {report.run_id}: {report.asked} asked, {report.there} answered by an earlier run{unread}")
    return lines


def _says_no(answer: str) -> bool:
    """An answer that denies: nothing was seen that it could be seen at."""
    return answer.strip().lower().rstrip(".!") in ("no", "none", "nobody", "nothing") or answer.lower().startswith(
        "no,"
    )


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in text)


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("ask", __doc__)
    parser.add_argument("--index", required=True, help="folder or s3:// prefix of the index")
    parser.add_argument("--question", action="append", default=[], metavar="TEXT", help="ask this; may be repeated")
    parser.add_argument("--questions", type=Path, metavar="FILE", help="one question a line, or a .csv")
    parser.add_argument(
        "--scope",
        choices=["video", "clip"],
        default="video",
        help="ask whole videos, showing 32 frames of their most relevant segments (default), or each clip",
    )
    parser.add_argument(
        "--where", metavar="SQL", help="ask only videos (or clips) for which this condition on their columns is true"
    )
    parser.add_argument("--top", type=int, metavar="N", help="only the N videos (or clips) most relevant to a question")
    parser.add_argument(
        "--standing", action="store_true", help="keep the question: later runs of jobs.index ask it of what is new"
    )
    parser.add_argument("--model", help="another Video LLM than the index's own")
    parser.add_argument("--thresholds", type=Path, metavar="FILE", help="the encoder's, if jobs.index was given one")
    parser.add_argument(
        "--abstain-below",
        type=float,
        metavar="SCORE",
        help="relevance below which nothing is asked (default: tau_t, the encoder's threshold for being about a text); "
        "-1 always asks",
    )
    parser.add_argument("--json", action="store_true", help="print all answers as one JSON object instead of lines")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where the models run")
    add_where_it_runs(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
