"""Stages as callables from one Arrow row to one Arrow row: probe, decode, describe, stage.

They know no Ray (on_ray.py strings them together), and no torch before a describe worker loads its models: driver and
decode workers start without those seconds.
A bad video is data: a VideoError becomes the row's `failure`, in one place a stage, and nothing else is caught.
"""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import pyarrow as pa

from pipeline.archive.remote import RemoteCopy
from pipeline.config import FRAMES_PER_CLIP, DescribeSetup
from pipeline.decoding.decoder import Decoder, Fill
from pipeline.decoding.sampling import parse_sampling, plan_clips
from pipeline.errors import ChangedWhileRead, ReadFailed, VideoError, WorkerLost
from pipeline.index.snapshot import Index, storage_trouble
from pipeline.index.staging import Rows, encode_item, stage
from pipeline.items.item import (
    Failure,
    Item,
    Probed,
    Receipt,
    Source,
    decoded_from_row,
    decoded_to_row,
    item_from_row,
    probed_to_row,
    receipt_record,
    source_from_row,
    staged_to_row,
)
from pipeline.storage.places import open_storage
from pipeline.types import Bounds, Decoded, ResizeRecipe

MAX_DEATHS = 2
"""A process that died this often on an item is not given it whole again."""

Begin = Callable[[str], int]
"""Says, outside the process, what it begins; returns which attempt at that this is (attempts.py)."""


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


class DescribeStage:
    """Decoded item -> staged rows, in Parquet, and its receipt. Holds the models."""

    def __init__(self, setup: DescribeSetup, begin: Begin) -> None:
        from pipeline.describing.item_describer import ItemDescriber  # torch

        self._describer, self._begin = ItemDescriber(setup), begin

    def __call__(self, row: pa.Table) -> pa.Table:
        item, decoded = item_from_row(row), decoded_from_row(row)
        seconds, bytes_read = {"decode": float(row["decode_seconds"][0].as_py())}, row["bytes_read"][0].as_py()
        if isinstance(decoded, Failure):
            return staged_to_row(_receipt(item, None, 0, decoded, seconds, bytes_read), None)
        rows: Rows = {}
        n_clips, failure = 0, None
        try:
            if self._begin(f"describe-{item.key}") <= MAX_DEATHS:
                rows, n_clips = self._describer.rows(item, decoded, seconds), len(decoded.clips) - item.has_context
            else:
                rows, n_clips = self._clip_by_clip(item, decoded, seconds)
                failure = Failure.of("describe", WorkerLost(f"the process died {MAX_DEATHS} times on this item"))
        except VideoError as error:
            failure = Failure.of("describe", error)
        receipt = _receipt(item, decoded, n_clips, failure, seconds, bytes_read)
        staged = encode_item(rows, receipt_record(receipt)) if receipt.is_staged else None
        return staged_to_row(receipt, staged)

    def _clip_by_clip(self, item: Item, decoded: Decoded, seconds: dict[str, float]) -> tuple[Rows, int]:
        """Rows of the clips that do not kill this process, one at a time; a clip that did so before is left out."""
        parts: list[Rows] = []
        for place in range(int(item.has_context), len(decoded.clips)):
            if item.kind == "answer" or self._begin(f"describe-{item.key}-{place}") > 1:
                continue
            before = decoded.clips[max(0, place - 1) : place] if item.kind == "index" else ()
            alone = replace(item, n_items=2, has_context=bool(before), stored=item.stored[place : place + 1])
            parts.append(self._describer.rows(alone, replace(decoded, clips=(*before, decoded.clips[place])), seconds))
        tables = {name for part in parts for name in part}
        return {name: pa.concat_tables([part[name] for part in parts if name in part]) for name in tables}, len(parts)


class StagingStage:
    """Staged rows -> one file in the index's staging folder; only the receipt goes on."""

    def __init__(self, output: str) -> None:
        self._index = Index(open_storage(output))

    def __call__(self, row: pa.Table) -> pa.Table:
        if row["staged"][0].is_valid:
            with storage_trouble(self._index):
                stage(self._index.storage, row["item_key"][0].as_py(), row["staged"][0].as_buffer().to_pybytes())
        return row.drop_columns(["staged"])


def _receipt(
    item: Item,
    decoded: Decoded | None,
    n_clips: int,
    failure: Failure | None,
    seconds: dict[str, float],
    bytes_read: int | None,
) -> Receipt:
    return Receipt(
        item_key=item.key,
        video_id=item.source.video_id,
        kind=item.kind,
        first_clip=item.clips[1 if item.has_context else 0].clip_index,
        n_clips=n_clips,
        decoder=None if decoded is None else decoded.decoder,
        coverage=None if decoded is None else decoded.coverage,
        failure=failure,
        seconds=seconds,
        bytes_read=bytes_read,
    )
