"""The main job in one minute: render an archive, index it, look at what came out, and count what is true.

    make demo            the same as python -m jobs.demo --seed 7
    make demo SEED=11    another archive

Videos are rendered from the seed (moving shapes in coloured rooms), so what is true of them is known.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import duckdb

from jobs import cli, index
from pipeline.planted.archive import TRUTH_FILE, read_truth, render_archive
from pipeline.planted.grade import grade

QUERY = """\
SELECT v.name, s.start_s, s.end_s, round(s.boundary_score, 2) AS boundary, a.answer
FROM '{index}/videos/*.parquet' v
JOIN '{index}/segments/*.parquet' s USING (video_id)
JOIN '{index}/answers/*.parquet' a USING (video_id)
WHERE a.question = '{question}'
ORDER BY v.name, s.start_s
LIMIT 8"""


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(lambda: _demo(_parser().parse_args(argv)))


def _demo(args: argparse.Namespace) -> int:
    folder: Path = args.folder / f"seed-{args.seed}"
    archive, output = folder / "archive", folder / "index"
    if (archive / TRUTH_FILE).exists():
        truth = read_truth(archive / TRUTH_FILE)
    else:
        print(f"rendering {args.videos} videos of {args.seconds} s into {archive}")
        truth = render_archive(archive, args.seed, args.videos, args.seconds)
    flags = [flag for question in truth.questions for flag in ("--question", question.text)]
    code = index.main([str(archive), "--output", str(output), "--model", "builtin", *flags])
    if code != 0:
        return code
    _show(output, truth.questions[1].text)
    captions = _rows(f"SELECT uri, start_s, caption FROM '{output}/captions/*.parquet'")
    answers = _rows(f"SELECT uri, question, answer, scope FROM '{output}/answers/*.parquet'")
    starts = (
        f"SELECT uri, s.start_s FROM '{output}/segments/*.parquet' s JOIN '{output}/clips/*.parquet' USING (clip_id)"
    )
    result = grade(truth, captions, answers, _rows(starts))
    print("\nheld against what was rendered:")
    for line in result.lines():
        print(f"  {line}")
    for fault in result.faults[:3]:
        print(f"  wrong, for example: {fault}")
    return 0


def _show(output: Path, question: str) -> None:
    print("\ncaptions:")
    named = _rows(
        f"SELECT v.name, c.start_s, c.end_s, c.caption FROM '{output}/captions/*.parquet' c "
        f"JOIN '{output}/videos/*.parquet' v USING (video_id) ORDER BY v.name, c.start_s"
    )
    for row in named[:4]:
        print(f"  {row['name']} {row['start_s']:g}-{row['end_s']:g} s: {row['caption']}")
    query = QUERY.format(index=output, question=question.replace("'", "''"))
    print(f"\na query, as any analyst would write it in DuckDB:\n\n{query}\n")
    print(duckdb.sql(query))


def _rows(query: str) -> list[dict[str, object]]:
    with duckdb.connect() as connection:
        found = connection.execute(query)
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("demo", __doc__)
    parser.add_argument("--seed", type=int, default=7, help="which archive to render (default: 7, never trained on)")
    parser.add_argument("--videos", type=int, default=6, help="videos to render (default: 6)")
    parser.add_argument("--seconds", type=int, default=24, help="seconds a video, 8 to 32 (default: 24)")
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="where it all goes (default: demo)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
