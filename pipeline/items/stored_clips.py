"""Items for work on clips that have rows already: new prompts on stored clips, and questions on whole videos.

Nothing is segmented again: times come from `clips.frame_pts_s`, segments and vectors from `segments`. The rows may
come from the index or from items staged in this run. Legend: S segments, D embedding width.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config import CLIPS_PER_ITEM, FRAMES_PER_CLIP
from pipeline.errors import UsageError
from pipeline.items.evidence import FloatArray, choose_shown, segment_relevance
from pipeline.items.item import Item, Shown, StoredSegments
from pipeline.types import ClipPlan, Source, Target

FRAMES_PER_ITEM = CLIPS_PER_ITEM * FRAMES_PER_CLIP
"""The size of any other item. Questions share frames, so those of a video this short are one item, however many."""


def check_stored(index_url: str, video_id: str, clips: pa.Table, segments: pa.Table) -> None:
    """UsageError unless a video's rows agree about its frames, as all rows do that this program wrote."""
    n_frames = dict(zip(clips["clip_id"].to_pylist(), clips["n_frames"].to_pylist(), strict=True))
    in_segments: Counter[str] = Counter()
    for clip_id, n in zip(segments["clip_id"].to_pylist(), segments["n_frames"].to_pylist(), strict=True):
        in_segments[clip_id] += n
    times = clips["frame_pts_s"].to_pylist()
    if (
        not n_frames
        or n_frames != in_segments
        or [len(t) for t in times] != list(n_frames.values())
        or not all(math.isfinite(t) for of_clip in times for t in of_clip)
    ):
        raise UsageError(
            f"clips and segments of video {video_id} in {index_url} disagree; jobs.verify says what is wrong"
        )


def again_items(
    source: Source,
    clips: pa.Table,
    segments: pa.Table,
    targets: Sequence[Target],
    fingerprints: Mapping[Target, str],
    clips_per_item: int,
) -> list[Item]:
    """Captions or clip questions on the clips of one video, decoded at their stored times."""
    stored = _stored_by_clip(segments)
    records = clips.sort_by("clip_index").to_pylist()
    groups = [records[i : i + clips_per_item] for i in range(0, len(records), clips_per_item)]
    return [
        Item(
            source=source,
            kind="again",
            index=index,
            n_items=len(groups),
            clips=tuple(_stored_plan(record) for record in group),
            targets=tuple(targets),
            fingerprints=fingerprints,
            stored=tuple(stored[record["clip_id"]] for record in group),
        )
        for index, group in enumerate(groups)
    ]


def answer_items(
    source: Source,
    clips: pa.Table,
    segments: pa.Table,
    questions: Mapping[Target, FloatArray],
    fingerprints: Mapping[Target, str],
) -> list[Item]:
    """Questions (target -> unit vector (D,)) on one whole video: the frames of its most relevant segments."""
    records = segments.sort_by([("clip_id", "ascending"), ("segment_index", "ascending")]).to_pylist()
    means: FloatArray = np.asarray([r["embedding"] for r in records], dtype=np.float32)  # (S, D)
    lengths = [r["n_frames"] for r in records]
    spans = [(r["segment_id"], r["start_s"], r["end_s"]) for r in records]
    times = [t for r in clips.sort_by("clip_index").to_pylist() for t in r["frame_pts_s"]]
    end_s = max(r["end_s"] for r in records)
    shown = [choose_shown(s, lengths, segment_relevance(means, q), spans) for s, q in questions.items()]
    groups = list(_sharing_frames(shown))
    return [
        _answer_item(source, group, times, end_s, (index, len(groups)), fingerprints)
        for index, group in enumerate(groups)
    ]


def _sharing_frames(shown: Sequence[Shown]) -> Iterator[list[Shown]]:
    """Consecutive questions that together are shown no more frames than an item holds."""
    group: list[Shown] = []
    frames: set[int] = set()
    for one in shown:
        if group and len(frames.union(one.places)) > FRAMES_PER_ITEM:
            yield group
            group, frames = [], set()
        group.append(one)
        frames.update(one.places)
    if group:
        yield group


def _answer_item(
    source: Source,
    group: Sequence[Shown],
    times: Sequence[float],
    end_s: float,
    place: tuple[int, int],
    fingerprints: Mapping[Target, str],
) -> Item:
    """One pseudo-clip holds every frame that some question of the group is shown, once, in time order."""
    wanted = sorted({times[p] for shown in group for p in shown.places})
    position = {time: i for i, time in enumerate(wanted)}
    moved = tuple(
        Shown(s.target, tuple(position[times[p]] for p in s.places), s.lengths, s.relevance, s.evidence) for s in group
    )
    return Item(
        source=source,
        kind="answer",
        index=place[0],
        n_items=place[1],
        clips=(ClipPlan(0, 0.0, end_s, tuple(wanted)),),
        targets=tuple(s.target for s in group),
        fingerprints=fingerprints,
        shown=moved,
    )


def _stored_plan(record: Mapping[str, Any]) -> ClipPlan:
    """The clip's own frames by their own times, duplicates of uniform sampling included."""
    return ClipPlan(
        record["clip_index"], record["start_s"], record["end_s"], tuple(record["frame_pts_s"]), unique=False
    )


def _stored_by_clip(segments: pa.Table) -> dict[str, StoredSegments]:
    by_clip: dict[str, list[dict[str, Any]]] = {}
    for record in segments.sort_by("segment_index").to_pylist():
        by_clip.setdefault(record["clip_id"], []).append(record)
    return {
        clip_id: StoredSegments(
            tuple(r["n_frames"] for r in records), tuple(tuple(map(float, r["embedding"])) for r in records)
        )
        for clip_id, records in by_clip.items()
    }
