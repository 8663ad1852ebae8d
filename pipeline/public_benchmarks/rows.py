"""A benchmark's own files, Parquet or JSON, as rows. What is missing or unknown is said in one line."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UsageError

Row = Mapping[str, Any]


def find_files(folder: Path, *patterns: str) -> list[Path]:
    """The files of the first glob below `folder` that matches any."""
    for pattern in patterns:
        if found := sorted(path for path in folder.glob(pattern) if path.is_file()):
            return found
    return []


def need_files(benchmark: str, folder: Path, *patterns: str) -> list[Path]:
    """`find_files`, or a UsageError that names what was looked for."""
    if not folder.is_dir():
        raise UsageError(f"--data {folder}: no such folder; expected the folder of {benchmark}'s files")
    if found := find_files(folder, *patterns):
        return found
    raise UsageError(f"--data {folder}: no file of {benchmark} in it; expected {' or '.join(patterns)}")


def read_parquet(files: Sequence[Path], columns: Iterable[str], optional: Iterable[str] = ()) -> tuple[list[Row], str]:
    """Rows of all files in order, and a line about unknown columns ("" when there are none)."""
    rows: list[Row] = []
    notice = ""
    for file in files:
        try:
            table = pq.read_table(file)
        except (pa.ArrowException, OSError) as error:
            raise UsageError(f"{file}: not a readable Parquet file: {' '.join(str(error).split())[:200]}") from error
        notice = _check_columns(file, table.column_names, columns, optional) or notice
        rows += table.to_pylist()
    return rows, notice


def read_json(file: Path, columns: Iterable[str], optional: Iterable[str] = ()) -> tuple[list[Row], str]:
    """Rows of a JSON list of objects, and a line about unknown keys."""
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: not readable as JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{file}: expected a JSON list of objects")
    names = list(dict.fromkeys(key for row in rows for key in row))
    return rows, _check_columns(file, names, columns, optional) if rows else ""


def _check_columns(file: Path, found: Sequence[str], columns: Iterable[str], optional: Iterable[str]) -> str:
    wanted = list(columns)
    missing = [name for name in wanted if name not in found]
    unknown = [name for name in found if name not in {*wanted, *optional}]
    if missing:
        hint = f"; it has {', '.join(unknown)}, which the layout does not know" if unknown else ""
        raise UsageError(f"{file}: column {', '.join(missing)} is missing; expected {', '.join(wanted)}{hint}")
    return f"{file.name}: unknown column {', '.join(unknown)}: not in the published layout, ignored" if unknown else ""


def text(row: Row, *names: str) -> tuple[list[str], str]:
    """The row's values as text, and the fault when one is null, not text, or empty."""
    values = [row.get(name) for name in names]
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).strip():
            return [v if isinstance(v, str) else str(v or "") for v in values], f"{name} is {value!r}; expected text"
    return [str(value) for value in values], ""


def option_texts(row: Row, name: str) -> tuple[list[str], str]:
    """The row's list of options, and the fault when there is none to choose from."""
    value = row.get(name)
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(option, str) for option in value):
        return [], f"{name} is {str(value)[:60]!r}; expected a list of at least two texts"
    return value, ""


def odd_count(options: Sequence[str], expected: int) -> str:
    """The line of a row with another number of options than the layout's."""
    return "" if len(options) == expected else f"{len(options)} options; expected {expected}; asked as it stands"


def unique(ids: Sequence[str]) -> list[str]:
    """The ids, a repeated one marked with its turn: "7", "7#2"."""
    turns: dict[str, int] = {}
    named = []
    for name in ids:
        turns[name] = turns.get(name, 0) + 1
        named.append(name if turns[name] == 1 else f"{name}#{turns[name]}")
    return named
