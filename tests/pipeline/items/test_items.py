"""What crosses a Ray boundary comes back as it went in, in exactly the declared columns."""

import numpy as np
import pytest

from pipeline.items.item import Failure, Item, Probed, Receipt, Shown, StoredSegments, cut_into_items
from pipeline.items.wire import (
    DECODED_SCHEMA,
    ITEM_SCHEMA,
    RECEIPT_SCHEMA,
    decoded_from_row,
    decoded_to_row,
    item_from_row,
    item_to_row,
    probed_from_record,
    probed_to_row,
    receipt_from_record,
    receipt_to_row,
    source_from_row,
    source_to_row,
)
from pipeline.types import EMBED, SAMPLE, ClipFrames, ClipPlan, Decoded, Probe, Source, Target

SOURCE = Source("v", "file:///a%FF%0A.mp4", b"/a\xff\n.mp4", "7-9")
PROBE = Probe("mov", "h264", 64, 48, 90, 25.0, False, 70.5, 1_700_000_000_000_000, (0.0, 1.0))
CLIPS = tuple(
    ClipPlan(k, 32.0 * k, 32.0 * k + 32, (32.0 * k, 32.0 * k + 1), 32.0 * k - 1 if k else None) for k in range(11)
)
FINGERPRINTS = {SAMPLE: "s", EMBED: "e", Target("caption:p"): "c"}


def an_item(**changes: object) -> Item:
    values = dict(
        source=SOURCE,
        kind="answer",
        index=1,
        n_items=2,
        clips=CLIPS[:2],
        targets=(Target("caption:p"), EMBED),
        fingerprints=FINGERPRINTS,
        stored=(StoredSegments((2, 1), ((0.5, 0.25), (1.0, 0.0))),),
        shown=(
            Shown(
                Target("answer:q:video"),
                (0, 2),
                (1, 1),
                (0.5, 0.25),
                ({"segment_id": "x", "start_s": 0.0, "end_s": 1.0, "score": 0.5},),
            ),
        ),
    )
    return Item(**{**values, **changes})  # type: ignore[arg-type]  # changed on purpose


def frames(n: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def test_items_and_sources_survive() -> None:
    row = item_to_row(an_item())
    assert row.schema.equals(ITEM_SCHEMA)
    assert item_from_row(row) == an_item()
    assert source_from_row(source_to_row(SOURCE)) == SOURCE


def test_probed_videos_survive() -> None:
    for probed in (
        Probed(SOURCE, PROBE, CLIPS, None, 0.5),
        Probed(SOURCE, None, (), Failure("probe", "NotAVideo", "text"), 0.1),
    ):
        assert probed_from_record(probed_to_row(probed).to_pylist()[0]) == probed


@pytest.mark.parametrize("encoder_frames", [None, frames(3, 5, 7)])
def test_frames_survive_without_a_null_column(encoder_frames: np.ndarray | None) -> None:
    clip = ClipFrames(4, 128.0, 160.0, (128.0, 129.0, 130.5), frames(3, 4, 6), encoder_frames, (b"x", b"yy", b""))
    row = decoded_to_row(item_to_row(an_item()), Decoded((clip,), "pyav", 0.75, 2), 1.5)
    assert row.schema.equals(DECODED_SCHEMA)
    assert item_from_row(row) == an_item()
    back = decoded_from_row(row)
    assert isinstance(back, Decoded)
    assert (back.decoder, back.coverage, back.bad_packets) == ("pyav", 0.75, 2)
    assert (back.clips[0].frames == clip.frames).all()
    assert back.clips[0].thumbnails == clip.thumbnails
    if encoder_frames is None:
        assert back.clips[0].encoder_frames is None
    else:
        assert (back.clips[0].encoder_frames == encoder_frames).all()


def test_receipts_survive() -> None:
    failure = Failure("decode", "DecodeTimeout", "60 s")
    assert failure.transient
    assert not Failure("probe", "NotAVideo", "").transient
    for receipt in (
        Receipt("k", "v", "index", 8, 3, "pyav", 1.0, None, {"decode": 1.0, "embed": 0.5}),
        Receipt("k", "v", "index", 8, 0, None, None, failure, {}),
    ):
        row = receipt_to_row(receipt)
        assert row.schema.equals(RECEIPT_SCHEMA)
        assert receipt_from_record(row.to_pylist()[0]) == receipt


def test_an_item_is_named_by_what_decides_its_rows() -> None:
    keys = {
        an_item().key,
        an_item(index=0).key,
        an_item(kind="again").key,
        an_item(source=Source("v", SOURCE.uri, SOURCE.path, "7-10")).key,
        an_item(fingerprints={**FINGERPRINTS, Target("caption:p"): "other"}).key,
        an_item(clips=CLIPS[:1]).key,
    }
    assert len(keys) == 6
    assert an_item(fingerprints={**FINGERPRINTS, Target("caption:other"): "z"}).key == an_item().key


def test_items_cover_a_video_once_and_carry_the_frame_before() -> None:
    items = cut_into_items(Probed(SOURCE, PROBE, CLIPS, None, 0.0), [EMBED], FINGERPRINTS, 4)
    assert [i.has_context for i in items] == [False, True, True]
    clips = [clip for item in items for clip in item.clips[int(item.has_context) :]]
    assert tuple(clips) == CLIPS
    assert [i.clips[0].targets_s for i in items[1:]] == [(CLIPS[4].before_s,), (CLIPS[8].before_s,)]
    assert {i.n_items for i in items} == {3}
