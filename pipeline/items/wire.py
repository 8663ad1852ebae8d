"""How a unit of work crosses between processes: one row each, Arrow columns with a declared schema.

    source -> probed; item -> decoded -> receipt

One row in, one row out. Dataclasses stand on either side, and each side converts once.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from pipeline.errors import VIDEO_ERRORS
from pipeline.index.names import typed
from pipeline.index.tables import EVIDENCE, FINGERPRINTS
from pipeline.items.item import Failure, Item, Probed, Receipt, Shown, StoredSegments
from pipeline.types import ClipFrames, ClipPlan, Decoded, Frames, Probe, Source, Target

Text = TypeVar("Text", str, Target)

_STR, _I32, _F64, _BOOL = pa.string(), pa.int32(), pa.float64(), pa.bool_()

_SOURCE = pa.struct([("video_id", _STR), ("uri", _STR), ("path", pa.binary()), ("version", _STR)])
_PLAN = pa.struct(
    [
        ("clip_index", _I32),
        ("start_s", _F64),
        ("end_s", _F64),
        ("targets_s", pa.list_(_F64)),
        ("before_s", _F64),
        ("unique", _BOOL),
    ]
)
_STORED = pa.struct([("lengths", pa.list_(_I32)), ("vectors", pa.list_(pa.list_(pa.float32())))])
_SHOWN = pa.struct(
    [
        ("target", _STR),
        ("places", pa.list_(_I32)),
        ("lengths", pa.list_(_I32)),
        ("relevance", pa.list_(_F64)),
        ("evidence", EVIDENCE),
    ]
)
_FAILURE = pa.struct([("stage", _STR), ("error_class", _STR), ("message", _STR)])
_PROBE = pa.struct(
    [
        ("container", _STR),
        ("codec", _STR),
        ("width", _I32),
        ("height", _I32),
        ("rotation", _I32),
        ("fps", _F64),
        ("is_vfr", _BOOL),
        ("duration_s", _F64),
        ("recorded_at_us", pa.int64()),
        ("target_times_s", pa.list_(_F64)),
    ]
)
_CLIP = pa.struct(
    [
        ("clip_index", _I32),
        ("start_s", _F64),
        ("end_s", _F64),
        ("pts_s", pa.list_(_F64)),
        ("height", _I32),
        ("width", _I32),
        ("frames", pa.large_binary()),
        ("encoder_height", _I32),
        ("encoder_width", _I32),
        ("encoder_frames", pa.large_binary()),
        ("thumbnails", pa.list_(pa.binary())),
    ]
)
SOURCE_SCHEMA = pa.schema([("source", _SOURCE)])
PROBED_SCHEMA = pa.schema(
    [
        ("source", _SOURCE),
        ("probe", _PROBE),
        ("clips", pa.list_(_PLAN)),
        ("failure", _FAILURE),
        ("seconds", _F64),
        ("bytes_read", pa.int64()),
    ]
)
ITEM_SCHEMA = pa.schema(
    [
        ("source", _SOURCE),
        ("kind", _STR),
        ("index", _I32),
        ("n_items", _I32),
        ("clips", pa.list_(_PLAN)),
        ("targets", pa.list_(_STR)),
        ("fingerprints", FINGERPRINTS),
        ("has_context", _BOOL),
        ("stored", pa.list_(_STORED)),
        ("shown", pa.list_(_SHOWN)),
    ]
)
_FRAMES = [
    ("decoded_clips", pa.list_(_CLIP)),
    ("decoder", _STR),
    ("coverage", _F64),
    ("bad_packets", _I32),
    ("decode_seconds", _F64),
    ("bytes_read", pa.int64()),
]
DECODED_SCHEMA = pa.schema([*ITEM_SCHEMA, *(pa.field(*column) for column in _FRAMES)])
RECEIPT_SCHEMA = pa.schema(
    [
        ("item_key", _STR),
        ("video_id", _STR),
        ("kind", _STR),
        ("first_clip", _I32),
        ("n_clips", _I32),
        ("decoder", _STR),
        ("coverage", _F64),
        ("failure", _FAILURE),
        ("seconds", pa.list_(pa.struct([("stage", _STR), ("seconds", _F64)]))),
        ("bytes_read", pa.int64()),
    ]
)


def source_to_row(source: Source) -> pa.Table:
    return pa.Table.from_pylist([{"source": asdict(source)}], schema=SOURCE_SCHEMA)


def source_from_row(row: pa.Table) -> Source:
    return Source(**row["source"][0].as_py())


def probed_to_row(probed: Probed) -> pa.Table:
    return pa.Table.from_pylist([asdict(probed)], schema=PROBED_SCHEMA)


def probed_from_record(record: dict[str, Any]) -> Probed:
    probe, failure = record["probe"], record["failure"]
    return Probed(
        source=Source(**record["source"]),
        probe=None if probe is None else Probe(**{**probe, "target_times_s": tuple(probe["target_times_s"])}),
        clips=tuple(_clip_plan(c) for c in record["clips"]),
        failure=None if failure is None else Failure(**failure),
        seconds=record["seconds"],
        bytes_read=record["bytes_read"],
    )


def item_to_row(item: Item) -> pa.Table:
    record = asdict(item) | {"fingerprints": _pairs(item.fingerprints, "fingerprint")}
    return pa.Table.from_pylist([record], schema=ITEM_SCHEMA)


def item_from_row(row: pa.Table) -> Item:
    record = row.select(ITEM_SCHEMA.names).to_pylist()[0]
    return Item(
        source=Source(**record["source"]),
        kind=record["kind"],
        index=record["index"],
        n_items=record["n_items"],
        clips=tuple(_clip_plan(c) for c in record["clips"]),
        targets=tuple(map(Target, record["targets"])),
        fingerprints={Target(pair["stage"]): pair["fingerprint"] for pair in record["fingerprints"]},
        has_context=record["has_context"],
        stored=tuple(StoredSegments(tuple(s["lengths"]), tuple(map(tuple, s["vectors"]))) for s in record["stored"]),
        shown=tuple(
            Shown(Target(s["target"]), *(tuple(s[k]) for k in ("places", "lengths", "relevance", "evidence")))
            for s in record["shown"]
        ),
    )


def decoded_to_row(row: pa.Table, decoded: Decoded, seconds: float, bytes_read: int | None = None) -> pa.Table:
    """The item's row with its frames, and what reading them took."""
    record = {
        "decoded_clips": [_clip_to_record(clip) for clip in decoded.clips],
        "decoder": decoded.decoder,
        "coverage": decoded.coverage,
        "bad_packets": decoded.bad_packets,
        "decode_seconds": seconds,
        "bytes_read": bytes_read,
    }
    frames = pa.Table.from_pylist([record], schema=pa.schema(_FRAMES))
    for name in frames.column_names:
        row = row.append_column(frames.schema.field(name), frames[name])
    return row


def decoded_from_row(row: pa.Table) -> Decoded:
    clips = tuple(_clip_from_struct(clip) for clip in row["decoded_clips"][0])
    return Decoded(clips, row["decoder"][0].as_py(), row["coverage"][0].as_py(), row["bad_packets"][0].as_py())


def receipt_to_row(receipt: Receipt) -> pa.Table:
    return pa.Table.from_pylist([receipt_record(receipt)], schema=RECEIPT_SCHEMA)


def receipt_record(receipt: Receipt) -> dict[str, Any]:
    """A receipt in plain values; it also travels as the metadata of the staged file."""
    return asdict(receipt) | {"seconds": _pairs(receipt.seconds, "seconds")}


def staged_receipt(item: Item, record: dict[str, Any]) -> Receipt | None:
    """The receipt of an item that an earlier run staged; None where `record` cannot be of this item."""
    try:
        receipt = typed(receipt_from_record(record))
    except (KeyError, TypeError, ValueError):
        return None
    if receipt.failure is not None and receipt.failure.error_class not in VIDEO_ERRORS:
        return None
    same = (receipt.item_key, receipt.video_id) == (item.key, item.source.video_id)
    return receipt if same and 0 <= receipt.n_clips <= len(item.clips) * max(1, len(item.targets)) else None


def receipt_from_record(record: dict[str, Any]) -> Receipt:
    record = {"bytes_read": None} | record  # staged by a version that did not know it
    failure = record["failure"]
    return Receipt(
        **{name: record[name] for name in RECEIPT_SCHEMA.names if name not in ("failure", "seconds")},
        failure=None if failure is None else Failure(**failure),
        seconds={pair["stage"]: pair["seconds"] for pair in record["seconds"]},
    )


def _pairs(mapping: Mapping[Text, Any], value: str) -> list[dict[str, Any]]:
    return [{"stage": stage, value: mapping[stage]} for stage in sorted(mapping)]


def _clip_plan(record: dict[str, Any]) -> ClipPlan:
    return ClipPlan(**{**record, "targets_s": tuple(record["targets_s"])})


def _clip_to_record(clip: ClipFrames) -> dict[str, Any]:
    encoder = clip.encoder_frames
    return {
        "clip_index": clip.clip_index,
        "start_s": clip.start_s,
        "end_s": clip.end_s,
        "pts_s": clip.pts_s,
        "height": clip.frames.shape[1],
        "width": clip.frames.shape[2],
        "frames": clip.frames.tobytes(),
        "encoder_height": None if encoder is None else encoder.shape[1],
        "encoder_width": None if encoder is None else encoder.shape[2],
        "encoder_frames": None if encoder is None else encoder.tobytes(),
        "thumbnails": list(clip.thumbnails),
    }


def _clip_from_struct(clip: pa.StructScalar) -> ClipFrames:
    pts_s = tuple(clip["pts_s"].as_py())
    return ClipFrames(
        clip_index=clip["clip_index"].as_py(),
        start_s=clip["start_s"].as_py(),
        end_s=clip["end_s"].as_py(),
        pts_s=pts_s,
        frames=_pixels(clip, "", len(pts_s)),
        encoder_frames=_pixels(clip, "encoder_", len(pts_s)) if clip["encoder_frames"].is_valid else None,
        thumbnails=tuple(clip["thumbnails"].as_py()),
    )


def _pixels(clip: pa.StructScalar, prefix: str, n: int) -> Frames:
    flat = np.frombuffer(clip[f"{prefix}frames"].as_buffer(), dtype=np.uint8)  # no copy
    return flat.reshape(n, clip[f"{prefix}height"].as_py(), clip[f"{prefix}width"].as_py(), 3)
