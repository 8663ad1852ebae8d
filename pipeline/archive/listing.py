"""The archive as a table: one row for every video that the roots name, read without opening any of them.

A root is a folder (all of it), a glob, one file, a manifest (.txt, .csv or .parquet of paths or URIs), or
s3://bucket/prefix. An input that exists literally is never a glob. Folders, prefixes and globs list files whose
extension is a video's and count the others as ignored; named files and lines of a manifest always get a row.

What must not be opened gets its row with a `refusal`: links that leave the root, FIFOs, sockets, devices, dangling
links, folders named like videos. Links to folders are not followed. Names are bytes: anything a file system can hold
survives, percent-escaped in the URI.
"""

import codecs
import csv
import fnmatch
import io
import itertools
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import OutsideArchive, ReadFailed, SpecialFile, UsageError
from pipeline.storage.places import head_object, is_s3, list_objects, open_storage, version_of_object
from pipeline.types import video_id_of

VIDEO_EXTENSIONS = frozenset(
    ["mp4", "m4v", "mov", "mkv", "webm", "avi", "ts", "m2ts", "mts", "mpg", "mpeg", "vob", "flv", "f4v", "ogv", "ogg"]
    + ["wmv", "asf", "ismv", "3gp", "3g2", "mxf", "gif", "m3u8", "mpd", "dv"]
)
MANIFEST_EXTENSIONS = (".txt", ".csv", ".parquet")

SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("path", pa.binary(), nullable=False),  # local: absolute path to open; S3: the key
        pa.field("name", pa.string(), nullable=False),  # for display: bytes that are no UTF-8 are shown as escapes
        pa.field("root", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("modified_us", pa.int64(), nullable=False),  # microseconds since 1970
        pa.field("refusal", pa.string()),  # error class of a file that must not be opened
        pa.field("refusal_message", pa.string()),
    ]
)
_BATCH_ROWS = 2048
_SORT_ROWS = 65_536
_GLOB = re.compile(rb"[*?\[]")


@dataclass(frozen=True)
class Root:
    """One input, as listed. Only a complete, non-empty root says anything about what is absent."""

    uri: str
    n_videos: int  # also those that another root listed first
    recursive: bool  # a folder or prefix: what lies below its URI belongs to it
    complaints: tuple[str, ...] = ()  # why it could not be listed to the end

    @property
    def is_complete(self) -> bool:
        return not self.complaints


@dataclass(frozen=True)
class Listing:
    """What the archive holds now. `table` has SCHEMA and is sorted by URI; `ignored` counts the other files seen."""

    table: pa.Table
    ignored: int
    roots: tuple[Root, ...]
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def covers(self, root: str, uri: str) -> bool:
        """Whether a video once listed under `root` would be listed now if it were still there.

        Absence counts only under roots listed completely, with at least one video, and not for what --include or
        --exclude left out.
        """
        counted = (candidate for candidate in self.roots if candidate.is_complete and candidate.n_videos)
        return any(self._covers(candidate, root, uri) for candidate in counted)

    def _covers(self, candidate: Root, root: str, uri: str) -> bool:
        if not candidate.recursive:
            return root == candidate.uri and not (self.include or self.exclude)
        prefix = candidate.uri.rstrip("/") + "/"
        if not uri.startswith(prefix):
            return False
        relative = uri[len(prefix) :]
        return _wanted(relative if is_s3(uri) else unquote_to_bytes(relative), self.include, self.exclude)


class _Found(NamedTuple):
    uri: str
    path: bytes
    name: str
    version: str
    size_bytes: int
    modified_us: int
    refusal: str | None = None
    refusal_message: str | None = None


@dataclass
class _Progress:
    """What a root's walk counts on its way."""

    ignored: int = 0
    complaints: list[str] = field(default_factory=list)


def list_archive(roots: Sequence[str], include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Listing:
    """List every video of `roots` once, however many roots reach it (the first one named owns it).

    `include` and `exclude` are shell patterns on the path below the root, where * also crosses "/"; they do not
    apply to named files and manifests. UsageError when a root does not exist or nothing at all is found.
    """
    if not roots:
        raise UsageError("no archive given: name at least one folder, file, glob, manifest or s3:// prefix")
    batches: list[pa.RecordBatch] = []
    listed: list[Root] = []
    ignored = 0
    for given in roots:
        progress = _Progress()
        uri, recursive, found = _open_root(given, tuple(include), tuple(exclude), progress)
        n_videos = 0
        for batch in _batched(found, uri):
            batches.append(batch)
            n_videos += len(batch)
        ignored += progress.ignored
        listed.append(Root(uri, n_videos, recursive, tuple(progress.complaints)))
    if not batches:
        complaints = "; ".join(complaint for root in listed for complaint in root.complaints)
        raise UsageError(
            f"no video found under {', '.join(map(_shown, roots))} ({ignored} other files ignored)"
            + (f": {complaints}" if complaints else "")
        )
    table = _first_of_each(batches)
    return Listing(table, ignored, tuple(listed), tuple(include), tuple(exclude))


def file_uri(path: bytes) -> str:
    """file:// with RFC 3986 escaping of an absolute path's bytes."""
    return "file://" + quote_from_bytes(path, safe="/-._~")


def uri_of_path(path: str) -> str:
    """The URI that listing gives a local file."""
    return file_uri(_absolute(os.fsencode(path)))


def path_of(uri: str) -> bytes:
    """The inverse of `file_uri`."""
    return unquote_to_bytes(uri.removeprefix("file://"))


def _open_root(
    given: str, include: tuple[str, ...], exclude: tuple[str, ...], progress: _Progress
) -> tuple[str, bool, Iterator[_Found]]:
    """URI of the root, whether everything below that URI is its, and the files it lists."""

    def wanted(relative: bytes | str) -> bool:
        return _wanted(relative, include, exclude)

    if is_s3(given):
        return _open_s3_root(given, wanted, progress)
    path = os.fsencode(given)
    if given.startswith("file://"):
        path = path_of(given)
    if os.path.lexists(path):
        absolute = _absolute(path)
        if os.path.isdir(path):
            folder = os.path.realpath(path)
            return file_uri(folder), True, _walk(folder, wanted, _is_video, progress)
        if os.path.isfile(path) and absolute.endswith(tuple(map(str.encode, MANIFEST_EXTENSIONS))):
            return file_uri(absolute), False, _manifest(os.fsdecode(absolute))
        return file_uri(absolute), False, iter([_named(absolute)])
    if _GLOB.search(path):
        folder, pattern = _split_glob(os.path.abspath(path))
        if not os.path.isdir(folder):
            raise UsageError(f"{_shown(given)}: no such folder: {_shown(os.fsdecode(folder))}")
        matches = _glob_matcher(pattern)
        real = os.path.realpath(folder)

        def matched(relative: bytes | str) -> bool:
            return matches(relative) and wanted(relative)

        return file_uri(os.path.join(real, pattern)), False, _walk(real, matched, _extension_rule(pattern), progress)
    raise UsageError(f"{_shown(given)}: no such file or folder, and no glob or s3:// prefix")


def _walk(
    root: bytes, wanted: Callable[[bytes], bool], is_video: Callable[[bytes], bool], progress: _Progress
) -> Iterator[_Found]:
    """Files below `root`, without recursion and without following links to folders."""
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as entries:
                children = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            progress.complaints.append(f"cannot list {_shown(os.fsdecode(folder))}: {error.strerror}")
            continue
        for entry in children:
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
            if not is_video(entry.name) or not wanted(entry.path[len(root) :].lstrip(b"/")):
                progress.ignored += not entry.is_dir(follow_symlinks=False)
                continue
            yield _inspect(entry.path, entry.is_symlink(), root)


def _inspect(path: bytes, is_link: bool, root: bytes | None) -> _Found:
    """One local file by its inode alone. `root` bounds where a symbolic link may lead; None: anywhere."""
    uri, name = file_uri(path), _display(os.path.basename(path))
    try:
        status = os.stat(path)
    except OSError as error:
        refusal = SpecialFile if is_link else ReadFailed
        return _Found(uri, path, name, "absent", 0, 0, refusal.__name__, f"cannot be reached: {error.strerror}")
    version = f"{status.st_size}-{status.st_mtime_ns}"
    refusal_name = message = None
    real = os.path.realpath(path) if is_link else path
    if root is not None and real != path and not real.startswith(root.rstrip(b"/") + b"/"):
        refusal_name, message = OutsideArchive.__name__, "a symbolic link that leaves the root"
    elif not stat.S_ISREG(status.st_mode):
        refusal_name, message = SpecialFile.__name__, f"not a regular file but {_kind(status.st_mode)}"
    return _Found(uri, real, name, version, status.st_size, status.st_mtime_ns // 1000, refusal_name, message)


def _named(path: bytes) -> _Found:
    """A file the user named, or a line of a manifest."""
    absolute = _absolute(path)
    return _inspect(absolute, os.path.islink(absolute), None)


def _absolute(path: bytes) -> bytes:
    """Absolute, with every link resolved but the last: two ways to a file give one URI, a link keeps its name."""
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(folder), name)


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def _manifest(location: str) -> Iterator[_Found]:
    """One row per line of a manifest, in a bounded number of requests at a time."""
    folder = b"" if is_s3(location) else os.path.dirname(os.fsencode(location))

    def look_up(line: bytes) -> _Found:
        if line.startswith(b"s3://"):
            return _named_object(line.decode("utf-8", "backslashreplace"))
        if line.startswith(b"file://"):
            return _named(unquote_to_bytes(line.removeprefix(b"file://")))
        if is_s3(location) and not line.startswith(b"/"):
            return _named_object(f"{location.rpartition('/')[0]}/{line.decode('utf-8', 'backslashreplace')}")
        return _named(os.path.join(folder, line))

    with ThreadPoolExecutor(max_workers=16) as pool:
        lines = list(_manifest_lines(location))
        for start in range(0, len(lines), _BATCH_ROWS):
            yield from pool.map(look_up, lines[start : start + _BATCH_ROWS])


def _manifest_lines(location: str) -> Iterable[bytes]:
    """Paths or URIs. A csv or Parquet file has them in its column `uri` or `path`, or in its only column."""
    folder, _, name = location.rpartition("/")
    try:
        data = open_storage(folder or "/").read_bytes(name)
    except OSError as error:
        raise UsageError(f"cannot read the manifest {_shown(location)}: {error}") from error
    try:
        if location.endswith(".txt"):
            lines = data.removeprefix(codecs.BOM_UTF8).split(b"\n")
            return [line for line in (raw.removesuffix(b"\r") for raw in lines) if line]
        if location.endswith(".csv"):
            rows = csv.reader(io.StringIO(data.decode("utf-8-sig", "surrogateescape"), newline=""), strict=True)
            header = next(rows, [])
            at = header.index(_manifest_column(header, location))
            return [row[at].encode("utf-8", "surrogateescape") for row in rows if row and row[at]]
        table = pq.read_table(pa.BufferReader(data))
        column = table[_manifest_column(table.column_names, location)].cast(pa.binary())
        return [line for line in column.to_pylist() if line]
    except (csv.Error, pa.ArrowException, IndexError) as error:
        raise UsageError(f"{_shown(location)} is not a readable manifest: {error}") from error


def _manifest_column(names: Sequence[str], location: str) -> str:
    for name in ("uri", "path"):
        if name in names:
            return name
    raise UsageError(f"{_shown(location)}: expected a column named uri or path, found {', '.join(names) or 'none'}")


def _open_s3_root(given: str, wanted: Callable[[str], bool], progress: _Progress) -> tuple[str, bool, Iterator[_Found]]:
    bucket, _, key = given.removeprefix("s3://").partition("/")
    named = _named_object(given) if key and not key.endswith("/") else None
    if named is not None and named.refusal is None:
        return given, False, _manifest(given) if given.endswith(MANIFEST_EXTENSIONS) else iter([named])
    if not _GLOB.search(key.encode()):
        prefix = f"{key.strip('/')}/" if key.strip("/") else ""
        return f"s3://{bucket}/{prefix}".rstrip("/"), True, _objects(bucket, prefix, wanted, _is_video, progress)
    folder, pattern = _split_glob(b"/" + key.encode())
    prefix, matches = f"{folder.decode().strip('/')}/".lstrip("/"), _glob_matcher(pattern)
    return (
        given,
        False,
        _objects(
            bucket, prefix, lambda relative: matches(relative) and wanted(relative), _extension_rule(pattern), progress
        ),
    )


def _objects(
    bucket: str, prefix: str, wanted: Callable[[str], bool], is_video: Callable[[bytes], bool], progress: _Progress
) -> Iterator[_Found]:
    """Videos below a prefix. UsageError when not even a first page is given: no such bucket, no permission."""
    items = list_objects(bucket, prefix)
    try:
        first = next(items, None)
    except OSError as error:
        raise UsageError(f"cannot list s3://{bucket}/{prefix}: {error}") from error
    try:
        for item in itertools.chain([first] if first else [], items):
            key: str = item["Key"]
            if key.endswith("/"):
                continue  # what consoles create for an empty folder
            if not is_video(key.rpartition("/")[2].encode()) or not wanted(key[len(prefix) :]):
                progress.ignored += 1
                continue
            yield _object(bucket, key, item["Size"], item["ETag"], item["LastModified"].timestamp())
    except OSError as error:
        progress.complaints.append(f"cannot list s3://{bucket}/{prefix} to the end: {error}")


def _named_object(uri: str) -> _Found:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    try:
        head = head_object(bucket, key)
    except OSError as error:
        return _Found(
            uri,
            key.encode(),
            PurePosixPath(key).name,
            "absent",
            0,
            0,
            ReadFailed.__name__,
            f"cannot be reached: {error}",
        )
    return _object(bucket, key, head["ContentLength"], head["ETag"], head["LastModified"].timestamp())


def _object(bucket: str, key: str, size_bytes: int, etag: str, modified_s: float) -> _Found:
    version = version_of_object(size_bytes, etag)
    return _Found(
        f"s3://{bucket}/{key}", key.encode(), PurePosixPath(key).name, version, size_bytes, int(modified_s * 1e6)
    )


def _first_of_each(batches: list[pa.RecordBatch]) -> pa.Table:
    """Sorted by URI, each URI once; the first root that listed it keeps it. Empties `batches`."""
    columns = pa.Table.from_batches(batches, SCHEMA).columns
    batches.clear()
    uris = columns[SCHEMA.get_field_index("uri")]
    rows = pa.table({"uri": uris, "order": pa.array(np.arange(len(uris)))})
    order = pc.sort_indices(rows, [("uri", "ascending"), ("order", "ascending")])
    del rows
    order = order.filter(_is_first(uris, order))
    del uris
    sorted_columns = []
    while columns:  # one at a time, so that the archive never lies in memory twice
        sorted_columns.append(columns.pop(0).combine_chunks().take(order))
        pa.default_memory_pool().release_unused()
    return pa.Table.from_arrays(sorted_columns, schema=SCHEMA)


def _is_first(values: pa.ChunkedArray, order: pa.Array) -> pa.Array:
    """For each place in `order`, whether its value differs from the one before."""
    parts = [pa.array([True])]
    for start in range(0, len(order) - 1, _SORT_ROWS):
        block = values.take(order[start : start + _SORT_ROWS + 1]).combine_chunks()
        parts.append(pc.not_equal(block[1:], block[:-1]))
    return pa.concat_arrays(parts)


def _batched(videos: Iterator[_Found], root: str) -> Iterator[pa.RecordBatch]:
    """Arrow batches: 100,000 Python rows at a time would be most of the driver's memory."""
    rows: list[tuple[object, ...]] = []
    for v in videos:
        common = (v.uri, v.path, v.name, root, v.version, v.size_bytes, v.modified_us, v.refusal, v.refusal_message)
        rows.append((video_id_of(v.uri), *common))
        if len(rows) == _BATCH_ROWS:
            yield _batch(rows)
            rows = []
    if rows:
        yield _batch(rows)


def _batch(rows: list[tuple[object, ...]]) -> pa.RecordBatch:
    columns = [pa.array(column, kind.type) for column, kind in zip(zip(*rows, strict=True), SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _display(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _shown(given: str) -> str:
    """A path as one line of valid text."""
    return repr(given.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


def _is_video(name: bytes) -> bool:
    _, dot, extension = name.rpartition(b".")
    return bool(dot) and extension.lower().decode("latin-1") in VIDEO_EXTENSIONS


def _extension_rule(pattern: bytes) -> Callable[[bytes], bool]:
    """A glob that spells out an extension asks for it; any other lists videos as a folder does."""
    suffix = os.path.splitext(pattern)[1]
    if not suffix or _GLOB.search(suffix):
        return _is_video
    return lambda name: name.endswith(suffix)


def _wanted(relative: bytes | str, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    if not include and not exclude:
        return True
    name = os.fsdecode(relative)
    return (not include or any(fnmatch.fnmatchcase(name, pattern) for pattern in include)) and not any(
        fnmatch.fnmatchcase(name, pattern) for pattern in exclude
    )


def _split_glob(path: bytes) -> tuple[bytes, bytes]:
    """The folder before the first part with a wildcard, and the pattern below it."""
    parts = path.split(b"/")
    first = next(i for i, part in enumerate(parts) if _GLOB.search(part))
    return b"/".join(parts[:first]) or b"/", b"/".join(parts[first:])


def _glob_matcher(pattern: bytes) -> Callable[[bytes | str], bool]:
    """Shell rules: * and ? stay inside a name, ** is any number of folders; a matched folder matches all below it."""
    parts = os.fsdecode(pattern).split("/")
    expression = "".join("(?:[^/]+/)*" if part == "**" else _part_expression(part) + "/" for part in parts)
    compiled = re.compile(expression, re.DOTALL)
    return lambda relative: compiled.match(os.fsdecode(relative) + "/") is not None


def _part_expression(part: str) -> str:
    def translated(token: str) -> str:
        if token in ("*", "?"):
            return "[^/]*" if token == "*" else "[^/]"
        if len(token) > 2 and token[0] == "[" and token[-1] == "]":
            negated = token[1] == "!"
            characters = token[1 + negated : -1].replace("\\", "\\\\").replace("[", "\\[").replace("^", "\\^")
            return f"[{'^/' if negated else ''}{characters}]"
        return re.escape(token)

    return "".join(map(translated, re.split(r"(\*|\?|\[!?\]?[^\]]*\])", part)))
