"""The table of kill points: `python -m tests.pipeline.index.crash_table > docs/crash_points.md`."""

import tempfile
from pathlib import Path

from tests.pipeline.index.test_commits import SCENARIOS, undisturbed

WHAT = {
    "publish": "three new videos and an error are committed",
    "replace": "a changed video replaces its rows, a new one is added",
    "new caption": "captions of one prompt and one answer are made again",
    "compact": "three files of each table become one",
    "purge": "two of three videos are removed from every table",
}
_HEAD = """# Where a commit can be killed

Each storage operation of each kind of commit is a kill point. `tests/pipeline/index/test_commits.py` kills before every
one, checks that readers see the state before or the state after, runs the next start, and compares all tables, by
snapshot and by plain glob, with those of an undisturbed run. The numbers are those of the test's small index.

| commit | what happens | kill points | opens at | readers see it from | closed after |
|---|---|---|---|---|---|
"""
_TAIL = """
Killed up to "opens at", nothing has happened: staged items wait, the same command commits them. Killed after it, the
next start finishes the commit. Killed after "readers see it", only deletes were left.
`python -m tests.pipeline.index.crash_table` writes this page.
"""


def crash_table() -> str:
    rows = []
    for scenario in SCENARIOS:
        with tempfile.TemporaryDirectory() as folder:
            _, _, points = undisturbed(scenario, str(Path(folder, "index")))
        opens = next(i for i, point in enumerate(points) if point.startswith("create _state/commits"))
        seen = next(i for i, point in enumerate(points) if point.startswith("replace _state/snapshot"))
        rows.append(f"| {scenario} | {WHAT[scenario]} | {len(points)} | {opens + 1} | {seen + 1} | {len(points)} |")
    return _HEAD + "\n".join(rows) + "\n" + _TAIL


if __name__ == "__main__":
    print(crash_table(), end="")
