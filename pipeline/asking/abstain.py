"""Questions that nothing stored is relevant enough for: their rows say so, and no frame is decoded for them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.config import DescribeSetup
from pipeline.describing.rows import Provenance, Record, answer_record, build_table
from pipeline.index.staging import encode_item, stage
from pipeline.items.evidence import FloatArray, choose_shown, segment_relevance, stored_means
from pipeline.items.item import Receipt, Shown
from pipeline.items.wire import receipt_record
from pipeline.storage.base import Storage
from pipeline.types import Source, Target, digest


@dataclass(frozen=True)
class Place:
    """What is asked about: a clip of a video, or (clip_id None) all of it; and its stored segments, in time order."""

    clip_id: str | None
    start_s: float
    end_s: float
    segments: pa.Table


def nearest(place: Place, question: FloatArray, target: Target) -> Shown:
    """The segments most relevant to a question (D,), whether or not they will be shown to the model."""
    rows = place.segments.select(["segment_id", "start_s", "end_s", "n_frames"]).to_pylist()
    relevance = segment_relevance(stored_means(place.segments), question)
    spans = [(r["segment_id"], r["start_s"], r["end_s"]) for r in rows]
    return choose_shown(target, [r["n_frames"] for r in rows], relevance, spans)


def stage_abstentions(
    storage: Storage,
    source: Source,
    abstained: Sequence[tuple[Place, Shown]],
    setup: DescribeSetup,
    dim: int,
    cut: frozenset[Target],
) -> Iterator[Receipt]:
    """Stage the rows of questions that were not asked, as one item of the video; nothing when there are none.

    `cut` are those whose text is longer than the encoder reads.
    """
    if not abstained:
        return
    by = Provenance(setup.run_id, setup.encoder, setup.model, setup.prune, setup.p, dim, setup.abstain_below, cut)
    records: list[Record] = []
    for place, shown in abstained:
        text, fingerprint = setup.recipe.texts[shown.target], setup.recipe.fingerprints[shown.target]
        span_s = (place.start_s, place.end_s)
        records.append(answer_record(source, span_s, place.clip_id, shown, text, fingerprint, by, None))
    key = digest("abstained", source.video_id, source.version, *(f"{p.clip_id}/{s.target}" for p, s in abstained))
    receipt = Receipt(key, source.video_id, "answer", 0, len(records), None, None, None)
    stage(storage, key, encode_item({"answers": build_table("answers", dim, records)}, receipt_record(receipt)))
    yield receipt
