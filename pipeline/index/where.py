"""--where: one SQL expression over the columns of rows at hand, written by anybody.

The text is parsed alone and must stay inside the parentheses it is put in; what it may be made of is listed. It runs in
a DuckDB that holds those rows in memory and can reach no file, no network, no extension and no setting.
"""

import json
from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import UsageError

_ALLOWED = frozenset(
    ["COMPARISON", "CONJUNCTION", "CONSTANT", "COLUMN_REF", "FUNCTION", "CAST", "OPERATOR", "BETWEEN", "CASE", "TYPE"]
)
"""Kinds of expression, in DuckDB's words: no subquery, no window, no parameter, no star, no lambda."""
_SEALED: dict[str, Any] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "memory_limit": "1GB",
    "lock_configuration": "true",
}
_PLACE = "place of the row"


class Where:
    """A condition on rows of `schema`. UsageError when it does not parse, names another column, or is more."""

    def __init__(self, text: str, schema: pa.Schema) -> None:
        self._text = text
        self.columns = _columns_of(text, schema)
        self._db = duckdb.connect(":memory:", config=_SEALED)
        self._refuse_other_types(schema.empty_table())

    def keep(self, rows: pa.Table) -> npt.NDArray[np.bool_]:
        """Which of `rows` satisfy the condition, (rows,); null does not."""
        kept = np.zeros(len(rows), np.bool_)
        kept[self._run(f'SELECT "{_PLACE}" FROM rows WHERE (\n{self._text}\n)', rows)[_PLACE].to_numpy()] = True
        return kept

    def _refuse_other_types(self, rows: pa.Table) -> None:
        self.keep(rows)
        kind = self._run(f"SELECT (\n{self._text}\n) AS kind FROM rows", rows).schema.field("kind").type
        if not pa.types.is_boolean(kind):
            raise UsageError(f"--where {self._text!r} is a {kind}; expected something true or false")

    def _run(self, query: str, rows: pa.Table) -> pa.Table:
        self._db.register("rows", rows.append_column(_PLACE, pa.array(np.arange(len(rows)))))
        try:
            return self._db.sql(query).to_arrow_table()
        except duckdb.Error as error:
            raise _refused(self._text, str(error)) from error


def _columns_of(text: str, schema: pa.Schema) -> tuple[str, ...]:
    """Columns that the expression names. UsageError when it is not one plain expression over columns of `schema`."""
    if not text.strip():
        raise UsageError("--where is empty; expected a condition such as start_s > 60")
    condition, around = _parsed(text)
    if around != _parsed("true")[1]:
        raise UsageError(f"--where {text!r} is more than one expression; expected a condition such as start_s > 60")
    columns = set()
    for node in _nodes(condition):
        if node["class"] not in _ALLOWED:
            kind = node["class"].lower().replace("_", " ")
            raise UsageError(f"--where {text!r} has a {kind} in it; expected a condition on columns only")
        if node["class"] == "COLUMN_REF":
            columns.add(".".join(node["column_names"]))
    if unknown := sorted(columns - set(schema.names)):
        raise UsageError(f"--where: no column {unknown[0]!r}; expected some of {', '.join(sorted(schema.names))}")
    return tuple(sorted(columns))


def _parsed(text: str) -> tuple[Any, Any]:
    """(the syntax tree of the condition, that of the statement around it), without places in the text."""
    statement = f"SELECT 1 FROM rows WHERE (\n{text}\n)"
    with duckdb.connect(":memory:", config=_SEALED) as db:
        try:
            found = db.execute("SELECT json_serialize_sql(?)", [statement]).fetchall()[0][0]
        except duckdb.Error as error:
            raise _refused(text, str(error)) from error
    tree = json.loads(found, object_hook=_without_places)
    if tree["error"]:
        raise _refused(text, tree["error_message"])
    condition = tree["statements"][0]["node"].pop("where_clause", None)
    return condition, tree


def _without_places(node: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if not key.startswith("query_location")}


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every expression of a syntax tree, whatever holds it."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _refused(text: str, message: str) -> UsageError:
    said = message.splitlines()[0]
    if ")" not in text:  # the one DuckDB stumbled over is ours
        said = said.replace('at or near ")"', "at its end")
    return UsageError(f"--where {text!r}: {said}")
