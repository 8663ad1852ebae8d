"""The archive as a table: one row for every video that the roots name, read without opening any of them.

A root is a folder (all of it), a glob, one file, a manifest (.txt, .csv or .parquet of paths or URIs), or
s3://bucket/prefix. An input that exists literally is never a glob. Folders, prefixes and globs list files whose
extension is a video's and count the others as ignored; named files and lines of a manifest always get a row.

What must not be opened gets its row with a `refusal`: links that leave the root, FIFOs, sockets, devices, dangling
links, folders named like videos. Links to folders are not followed. Names are bytes: anything a file system can hold
survives, percent-escaped in the URI.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.archive.buckets import named_object, objects
from pipeline.archive.folders import absolute, file_uri, named, path_of, walk
from pipeline.archive.found import BATCH_ROWS, Found, Progress, shown
from pipeline.archive.manifests import MANIFEST_EXTENSIONS, from_manifest
from pipeline.archive.patterns import GLOB, extension_rule, glob_matcher, is_video, split_glob, wanted_by
from pipeline.errors import UsageError
from pipeline.storage.s3 import bucket_and_key, is_s3
from pipeline.types import video_id_of

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
_SORT_ROWS = 65_536


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
        return wanted_by(relative if is_s3(uri) else unquote_to_bytes(relative), self.include, self.exclude)


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
        progress = Progress()
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
            f"no video found under {', '.join(map(shown, roots))} ({ignored} other files ignored)"
            + (f": {complaints}" if complaints else "")
        )
    table = _first_of_each(batches)
    return Listing(table, ignored, tuple(listed), tuple(include), tuple(exclude))


def _open_root(
    given: str, include: tuple[str, ...], exclude: tuple[str, ...], progress: Progress
) -> tuple[str, bool, Iterator[Found]]:
    """URI of the root, whether everything below that URI is its, and the files it lists."""

    def wanted(relative: bytes | str) -> bool:
        return wanted_by(relative, include, exclude)

    if is_s3(given):
        return _open_s3_root(given, wanted, progress)
    path = path_of(given) if given.startswith("file://") else os.fsencode(given)
    if os.path.lexists(path):
        place = absolute(path)
        if os.path.isdir(path):
            folder = os.path.realpath(path)
            return file_uri(folder), True, walk(folder, wanted, is_video, progress)
        if os.path.isfile(path) and place.endswith(tuple(map(str.encode, MANIFEST_EXTENSIONS))):
            return file_uri(place), False, from_manifest(os.fsdecode(place))
        return file_uri(place), False, iter([named(place)])
    if GLOB.search(path):
        folder, pattern = split_glob(os.path.abspath(path))
        if not os.path.isdir(folder):
            raise UsageError(f"{shown(given)}: no such folder: {shown(os.fsdecode(folder))}")
        matches = glob_matcher(pattern)
        real = os.path.realpath(folder)

        def matched(relative: bytes | str) -> bool:
            return matches(relative) and wanted(relative)

        return file_uri(os.path.join(real, pattern)), False, walk(real, matched, extension_rule(pattern), progress)
    raise UsageError(f"{shown(given)}: not found; expected a file, folder, glob or s3:// prefix")


def _open_s3_root(given: str, wanted: Callable[[str], bool], progress: Progress) -> tuple[str, bool, Iterator[Found]]:
    bucket, key = bucket_and_key(given)
    named = named_object(given) if key and not key.endswith("/") else None
    if named is not None and named.refusal is None:
        return given, False, from_manifest(given) if given.endswith(MANIFEST_EXTENSIONS) else iter([named])
    if not GLOB.search(key.encode()):
        prefix = f"{key.strip('/')}/" if key.strip("/") else ""
        return f"s3://{bucket}/{prefix}".rstrip("/"), True, objects(bucket, prefix, wanted, is_video, progress)
    folder, pattern = split_glob(b"/" + key.encode())
    prefix, matches = f"{folder.decode().strip('/')}/".lstrip("/"), glob_matcher(pattern)
    return (
        given,
        False,
        objects(
            bucket, prefix, lambda relative: matches(relative) and wanted(relative), extension_rule(pattern), progress
        ),
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


def _batched(videos: Iterator[Found], root: str) -> Iterator[pa.RecordBatch]:
    """Arrow batches: 100,000 Python rows at a time would be most of the driver's memory."""
    rows: list[tuple[object, ...]] = []
    for v in videos:
        common = (v.uri, v.path, v.name, root, v.version, v.size_bytes, v.modified_us, v.refusal, v.refusal_message)
        rows.append((video_id_of(v.uri), *common))
        if len(rows) == BATCH_ROWS:
            yield _batch(rows)
            rows = []
    if rows:
        yield _batch(rows)


def _batch(rows: list[tuple[object, ...]]) -> pa.RecordBatch:
    columns = [pa.array(column, kind.type) for column, kind in zip(zip(*rows, strict=True), SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
