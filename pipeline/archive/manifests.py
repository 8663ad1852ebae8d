"""A manifest: a .txt, .csv or .parquet file that names videos by path or URI."""

import codecs
import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote_to_bytes

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.archive.buckets import named_object
from pipeline.archive.folders import absolute, file_uri, named
from pipeline.archive.found import BATCH_ROWS, Found, shown
from pipeline.errors import UsageError
from pipeline.storage.places import read_named
from pipeline.storage.s3 import is_s3

MANIFEST_EXTENSIONS = (".txt", ".csv", ".parquet")


def from_manifest(location: str) -> Iterator[Found]:
    """One row per line of a manifest, in a bounded number of requests at a time."""

    def look_up(line: bytes) -> Found:
        place = _place(location, line)
        return named_object(place) if isinstance(place, str) else named(place)

    with ThreadPoolExecutor(max_workers=16) as pool:
        lines = list(_lines(location))
        for start in range(0, len(lines), BATCH_ROWS):
            yield from pool.map(look_up, lines[start : start + BATCH_ROWS])


def manifest_uris(location: str) -> frozenset[str]:
    """The URIs that listing a manifest gives its lines; no video is looked at."""
    places = (_place(location, line) for line in _lines(location))
    return frozenset(place if isinstance(place, str) else file_uri(absolute(place)) for place in places)


def _place(location: str, line: bytes) -> str | bytes:
    """What a line names: an s3:// URI, or a local path, relative to the manifest's folder."""
    if line.startswith(b"file://"):
        return unquote_to_bytes(line.removeprefix(b"file://"))
    if line.startswith(b"s3://"):
        return line.decode("utf-8", "backslashreplace")
    if is_s3(location) and not line.startswith(b"/"):
        return f"{location.rpartition('/')[0]}/{line.decode('utf-8', 'backslashreplace')}"
    return os.path.join(b"" if is_s3(location) else os.path.dirname(os.fsencode(location)), line)


def _lines(location: str) -> Iterable[bytes]:
    """Paths or URIs. A csv or Parquet file has them in its column `uri` or `path`, or in its only column."""
    try:
        data = read_named(location)
    except OSError as error:
        raise UsageError(f"cannot read the manifest {shown(location)}: {error}") from error
    try:
        if location.endswith(".txt"):
            lines = data.removeprefix(codecs.BOM_UTF8).split(b"\n")
            return [line for line in (raw.removesuffix(b"\r") for raw in lines) if line]
        if location.endswith(".csv"):
            rows = csv.reader(io.StringIO(data.decode("utf-8-sig", "surrogateescape"), newline=""), strict=True)
            header = next(rows, [])
            at = header.index(_column(header, location))
            return [row[at].encode("utf-8", "surrogateescape") for row in rows if row and row[at]]
        table = pq.read_table(pa.BufferReader(data))
        column = table[_column(table.column_names, location)].cast(pa.binary())
        return [line for line in column.to_pylist() if line]
    except (csv.Error, pa.ArrowException, IndexError) as error:
        raise UsageError(f"{shown(location)} is not a readable manifest: {error}") from error


def _column(names: Sequence[str], location: str) -> str:
    for name in ("uri", "path"):
        if name in names:
            return name
    raise UsageError(f"{shown(location)}: expected a column named uri or path, found {', '.join(names) or 'none'}")
