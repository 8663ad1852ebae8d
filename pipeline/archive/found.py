"""One video as a root lists it, and what a root's walk counts on its way."""

from dataclasses import dataclass, field
from typing import NamedTuple

BATCH_ROWS = 2048


class Found(NamedTuple):
    uri: str
    path: bytes
    name: str
    version: str
    size_bytes: int
    modified_us: int
    refusal: str | None = None
    refusal_message: str | None = None


@dataclass
class Progress:
    """What a root's walk counts on its way."""

    ignored: int = 0
    complaints: list[str] = field(default_factory=list)


def shown(given: str) -> str:
    """A path as one line of valid text."""
    return repr(given.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))
