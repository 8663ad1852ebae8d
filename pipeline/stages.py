"""Stages as callables from one Arrow row to one Arrow row: probe, decode, stage. Describing is in describe_stage.py.

They know no Ray (workers.py strings them together) and no torch (a decode worker starts in a fraction of a second).
A bad video is data: a VideoError becomes the row's `failure`, in one place a stage, and nothing else is caught.
"""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import pyarrow as pa

from pipeline.commits import storage_trouble
from pipeline.config import FRAMES_PER_CLIP
from pipeline.decode import Decoder, Fill
from pipeline.errors import ChangedWhileRead, ReadFailed, VideoError, WorkerLost
from pipeline.index import Index
from pipeline.items import (
    Failure,
    Probed,
    Source,
    decoded_to_row,
    item_from_row,
    probed_to_row,
    source_from_row,
)
from pipeline.remote import RemoteCopy
from pipeline.sampling import parse_sampling, plan_clips
from pipeline.staging import stage
from pipeline.storage import open_storage
from pipeline.types import Bounds, Decoded, ResizeRecipe

MAX_DEATHS = 2
"""A process that died this often on an item is not given it whole again."""

Begin = Callable[[str], int]
"""Counts, outside the process, how often work of this name was begun; returns the count, this time included."""


class ProbeStage:
    """Listed video -> its facts and clips."""

    def __init__(self, sampling: str, bounds: Bounds) -> None:
        self._sampling = parse_sampling(sampling)
        self._decoder = Decoder(bounds)

    def __call__(self, row: pa.Table) -> pa.Table:
        source, started = source_from_row(row), time.perf_counter()
        try:
            with readable(source) as file:
                probe = self._decoder.probe(file.path, self._sampling, file.filler)
                bytes_read = file.bytes_read
            clips = plan_clips(probe, self._sampling, FRAMES_PER_CLIP)
            probed = Probed(source, probe, clips, None, 0.0, bytes_read)
        except VideoError as error:
            probed = Probed(source, None, (), Failure.of("probe", error), 0.0)
        return probed_to_row(replace(probed, seconds=time.perf_counter() - started))


class DecodeStage:
    """Item -> its frames, resized for the model (and for the encoder, where that wants other pixels)."""

    def __init__(self, bounds: Bounds, model: ResizeRecipe, encoder: ResizeRecipe, begin: Begin) -> None:
        self._decoder = Decoder(bounds)
        self._model, self._encoder = model, None if encoder == model else encoder
        self._begin = begin

    def __call__(self, row: pa.Table) -> pa.Table:
        item, started = item_from_row(row), time.perf_counter()
        decoded: Decoded | Failure
        bytes_read = None
        try:
            if self._begin(f"decode-{item.key}") > MAX_DEATHS:
                raise WorkerLost(f"the decode worker died {MAX_DEATHS} times on this item")
            with readable(item.source) as file:
                decoded = self._decoder.decode(file.path, item.clips, self._model, self._encoder, fill=file.filler)
                bytes_read = file.bytes_read
        except VideoError as error:
            decoded = Failure.of("decode", error)
        return decoded_to_row(row, decoded, time.perf_counter() - started, bytes_read)


@dataclass(frozen=True)
class LocalFile:
    """A video on a disk of this node: all of it is there, and what is read of it is not counted."""

    path: str
    filler: Fill | None = None
    bytes_read: int | None = None


def readable(source: Source) -> AbstractContextManager[LocalFile | RemoteCopy]:
    """The video's bytes at a local path; a file that no longer is what was listed raises ChangedWhileRead."""
    if source.uri.startswith("s3://"):
        return RemoteCopy(source.uri, source.version)
    path = os.fsdecode(source.path)
    try:
        status = os.stat(path)
    except OSError as error:
        raise ReadFailed(f"cannot read it: {error.strerror}") from error
    if f"{status.st_size}-{status.st_mtime_ns}" != source.version:
        raise ChangedWhileRead("its size or modification time is no longer what the listing saw")
    return nullcontext(LocalFile(path))


class StagingStage:
    """Staged rows -> one file in the index's staging folder; only the receipt goes on."""

    def __init__(self, output: str) -> None:
        self._index = Index(open_storage(output))

    def __call__(self, row: pa.Table) -> pa.Table:
        if row["staged"][0].is_valid:
            with storage_trouble(self._index):
                stage(self._index.storage, row["item_key"][0].as_py(), row["staged"][0].as_buffer().to_pybytes())
        return row.drop_columns(["staged"])
