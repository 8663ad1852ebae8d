"""What workers do: probe and decode on one kind of worker, describe and stage on the other. One Arrow row in, one out.

They know no Ray, and no torch before a describe worker loads its models: driver and decode workers start without those
seconds. A bad video is data: a VideoError becomes a `Failure` in one place a stage, and nothing else is caught.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline.archive.readable import readable
from pipeline.config import FRAMES_PER_CLIP, DescribeSetup
from pipeline.decoding.decoder import Decoder
from pipeline.decoding.sampling import parse_sampling, plan_clips
from pipeline.errors import NotFinite, VideoError, WorkerLost
from pipeline.index.snapshot import Index, storage_trouble
from pipeline.index.staging import Rows, encode_item, stage
from pipeline.items.item import Failure, Item, Probed, Receipt
from pipeline.items.wire import (
    decoded_from_row,
    decoded_to_row,
    item_from_row,
    probed_to_row,
    receipt_record,
    receipt_to_row,
    source_from_row,
)
from pipeline.storage.places import open_storage
from pipeline.types import Bounds, Decoded

if TYPE_CHECKING:
    from pipeline.items.evidence import Questions


@dataclass(frozen=True)
class WorkerSetup:
    """All that workers of a run build themselves from."""

    sampling: str
    bounds: Bounds
    output: str
    describe: DescribeSetup


class DecodeStage:
    """Videos to facts and clips, items to frames. Its decode child does the work and may die."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._sampling = parse_sampling(setup.sampling)
        self._decoder = Decoder(setup.bounds)
        model, encoder = setup.describe.model.resize, setup.describe.encoder.resize
        self._model, self._encoder = model, None if encoder == model else encoder

    def probe(self, row: pa.Table) -> pa.Table:
        """Listed video -> its facts and clips."""
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

    def decode(self, row: pa.Table) -> tuple[pa.Table | None, pa.Table | None]:
        """Item -> (its frames, resized for model and encoder; None), or (None, its receipt) where that fails."""
        item, started = item_from_row(row), time.perf_counter()
        try:
            with readable(item.source) as file:
                decoded = self._decoder.decode(file.path, item.clips, self._model, self._encoder, fill=file.filler)
                bytes_read = file.bytes_read
        except VideoError as error:
            seconds = {"decode": time.perf_counter() - started}
            return None, receipt_to_row(receipt_of(item, failure=Failure.of("decode", error), seconds=seconds))
        return decoded_to_row(row, decoded, time.perf_counter() - started, bytes_read), None


class DescribeStage:
    """Decoded items to staged rows. Holds the models; several items may be in it at a time, from several threads."""

    def __init__(self, setup: WorkerSetup) -> None:
        from pipeline.describing.item_describer import ItemDescriber  # torch

        self._describer = ItemDescriber(setup.describe)
        self._index = Index(open_storage(setup.output))

    def questions(self) -> "Questions":
        """The recipe's questions as the encoder sees them: the driver loads no model."""
        return self._describer.questions

    def describe(self, row: pa.Table, only: Sequence[int] | None = None, is_trial: bool = False) -> pa.Table:
        """Decoded item -> its receipt; its rows lie in staging then. `only`: the clips, by place in the item, of one
        that killed its workers as a whole. A trial leaves no rows.
        """
        item, decoded = item_from_row(row), decoded_from_row(row)
        seconds, bytes_read = {"decode": float(row["decode_seconds"][0].as_py())}, row["bytes_read"][0].as_py()
        rows: Rows = {}
        n_clips, failure = len(decoded.clips) - item.has_context, None
        try:
            if only is None:
                rows = self._describer.rows(item, decoded, seconds)
            else:
                (rows, n_clips), failure = self._clip_by_clip(item, decoded, only, seconds), killed_twice(item)
        except NotFinite as error:
            every = () if item.kind == "answer" else range(int(item.has_context), len(decoded.clips))
            (rows, n_clips), failure = self._clip_by_clip(item, decoded, every, seconds), Failure.of("describe", error)
        except VideoError as error:
            rows, n_clips, failure = {}, 0, Failure.of("describe", error)
        receipt = receipt_of(item, decoded, n_clips, failure, seconds, bytes_read)
        if receipt.is_staged and not is_trial:
            self._stage(item, encode_item(rows, receipt_record(receipt)))
        return receipt_to_row(receipt)

    def _stage(self, item: Item, data: bytes) -> None:
        with storage_trouble(self._index):
            stage(self._index.storage, item.key, data)

    def _clip_by_clip(
        self, item: Item, decoded: Decoded, only: Sequence[int], seconds: dict[str, float]
    ) -> tuple[Rows, int]:
        """Rows of some clips of an item, one clip at a time, and of how many; those that end in NotFinite have none."""
        parts: list[Rows] = []
        for place in only:
            before = decoded.clips[max(0, place - 1) : place] if item.kind == "index" else ()
            alone = replace(item, n_items=2, has_context=bool(before), stored=item.stored[place : place + 1])
            with suppress(NotFinite):  # the item's failure already
                parts.append(
                    self._describer.rows(alone, replace(decoded, clips=(*before, decoded.clips[place])), seconds)
                )
        tables = {name for part in parts for name in part}
        return {name: pa.concat_tables([part[name] for part in parts if name in part]) for name in tables}, len(parts)


@dataclass(frozen=True)
class Stages:
    """The two kinds of worker. Tests and benchmarks name their own in place of one."""

    decode: type[DecodeStage] = DecodeStage
    describe: type[DescribeStage] = DescribeStage


MAX_DEATHS = 2
"""An item that so many workers died of is not given to one whole again."""


def killed_twice(item: Item, stage: str = "describe") -> Failure:
    return Failure.of(stage, WorkerLost(f"{MAX_DEATHS} {stage} workers died on this item"))


def receipt_of(
    item: Item,
    decoded: Decoded | None = None,
    n_clips: int = 0,
    failure: Failure | None = None,
    seconds: dict[str, float] | None = None,
    bytes_read: int | None = None,
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
        seconds=seconds or {},
        bytes_read=bytes_read,
    )
