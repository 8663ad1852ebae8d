"""A table of docs/running.md whose rows are of runs that passed: each is written when its run has."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.jobs.conftest import ROOT

PAGE = ROOT / "docs" / "running.md"


@dataclass(frozen=True)
class PageTable:
    """The table between `begin` and `end`, lines of the page; `head` is its first row."""

    begin: str
    end: str
    head: str

    def rows(self) -> list[str]:
        inside = PAGE.read_text().partition(self.begin)[2].partition(self.end)[0]
        return [line for line in inside.splitlines() if line.startswith("|")][2:]

    def put(self, name: str, row: str, order: Sequence[str]) -> None:
        """The row of `name` becomes `row`, or goes when that is empty; rows stand in `order`."""
        found = {row_name(old): old for old in self.rows()} | {name: row}
        table = [self.head, "|---" * (self.head.count("|") - 1) + "|", *(found[n] for n in order if found.get(n))]
        before, _, rest = PAGE.read_text().partition(self.begin)
        PAGE.write_text(before + self.begin + "\n".join(table) + "\n" + self.end + rest.partition(self.end)[2])


def row_name(row: str) -> str:
    return row.removeprefix("| ").split(" | ")[0]
