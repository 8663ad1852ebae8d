"""docs/running.md has a line for every error class and exit code, in the words of pipeline/errors.py."""

from pathlib import Path

import pytest

from pipeline.errors import VIDEO_ERRORS, BooksDoNotBalance, IndexLocked, JobError, UsageError

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "running.md").read_text()


def test_every_error_class_stands_in_the_table_and_no_other() -> None:
    found = [line for line in PAGE.splitlines() if "| when it changes |" in line or "| in up to 3 runs |" in line]
    expected = []
    for name, error in VIDEO_ERRORS.items():
        when = "in up to 3 runs" if error.transient else "when it changes"
        expected.append(f"| `{name}` | {when} | {(error.__doc__ or '').strip()} |")
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("error", [JobError, UsageError, BooksDoNotBalance, IndexLocked])
def test_every_exit_code_stands_in_the_table(error: type[JobError]) -> None:
    assert f"\n| {error.exit_code} | " in PAGE
