"""The forms of names and records that an index holds under `_state`. What was read is checked here before it is used.

An index may have been written by others: a name in it must not reach out of it, and whatever else is wrong with it ends
the job in one line. UsageError says which file is not what it should be, and why.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import pyarrow as pa

from pipeline.errors import UsageError

T = TypeVar("T")

_PLAIN = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,127}")
_TABLE_FILE = re.compile(r"c\d{8,12}-g\d{4,12}\.parquet")
MAX_DIM = 65_536
"""Width of an embedding that is still believed."""


def table_file(commit: int, group: int) -> str:
    """The name of the file that one group of a commit adds to a table."""
    return f"c{commit:08d}-g{group:04d}.parquet"


def is_table_file(name: str) -> bool:
    return _TABLE_FILE.fullmatch(name) is not None


def is_plain(name: str) -> bool:
    """Whether `name` may be part of a path: the key of a staged item, a token, the id of a run."""
    return _PLAIN.fullmatch(name) is not None


@contextlib.contextmanager
def reading(what: str, url: str) -> Iterator[None]:
    """Whatever a record's or a file's form is broken by, in one line: `what` is expected at `url`."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.errno is not None:  # storage failed, not the form
            raise
        raise _broken(what, url, error) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, pa.ArrowException) as error:
        raise _broken(what, url, error) from error


def _broken(what: str, url: str, error: Exception) -> UsageError:
    said = (str(error).splitlines() or [""])[0] or type(error).__name__
    return UsageError(f"{url} is not {what}: {said[:300]}")


def record_of(data: bytes) -> dict[str, Any]:
    """A JSON object. ValueError for anything else."""
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError(f"expected an object, found a {type(found).__name__}")
    return found


def expect(holds: bool, what: object) -> None:
    """ValueError naming `what` unless it `holds`."""
    if not holds:
        raise ValueError(f"unexpected {str(what)[:200]!r}")


def count(value: object) -> int:
    """A whole number that counts something."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 53:
        raise ValueError(f"expected a count, found {str(value)[:200]!r}")
    return value


def typed(value: T) -> T:
    """A dataclass that was made from JSON, if its fields are of the types they are declared with. Else ValueError."""
    kinds = get_type_hints(type(value))
    for field in fields(value):  # type: ignore[arg-type]  # T is a dataclass; the type system has no word for that
        found = getattr(value, field.name)
        expect(_is_a(found, kinds[field.name]), f"{field.name} {found!r}")
    return value


def _is_a(value: object, kind: Any) -> bool:
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_is_a(value, one) for one in parts)
    if origin is Literal:
        return value in parts
    if origin is tuple:
        return isinstance(value, tuple) and all(_is_a(part, parts[0]) for part in value)
    if origin is Mapping:
        return isinstance(value, dict) and all(_is_a(k, parts[0]) and _is_a(v, parts[1]) for k, v in value.items())
    if is_dataclass(kind):
        return is_dataclass(value) and typed(value) is value
    return isinstance(value, (int, float) if kind is float else kind) and isinstance(value, bool) <= (kind is bool)
