"""The unit of work as values: a video's source, what the probe found, an item of its clips, and the item's receipt.

listed video -> Probed -> Item -> Decoded -> Receipt
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import VIDEO_ERRORS, VideoError
from pipeline.types import EMBED, ClipPlan, ItemKind, Probe, Source, Target, digest


@dataclass(frozen=True)
class Shown:
    """What the model is shown for one question on a whole video, and why.

    `places` are positions among the item's frames in time order; `lengths` groups them into segments (they sum to
    len(places)); `relevance` has one score a group; `evidence` lists all segments shown, most relevant first.
    """

    target: Target
    places: tuple[int, ...]
    lengths: tuple[int, ...]
    relevance: tuple[float, ...]
    evidence: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class StoredSegments:
    """Segments of a clip that is already in the index: how many frames each has, and its mean vector."""

    lengths: tuple[int, ...]
    vectors: tuple[tuple[float, ...], ...]  # (S, D)


@dataclass(frozen=True)
class Item:
    """Up to eight consecutive clips of one video, and what is wanted of them.

    kind "index": decode, embed, describe. "again": clips already in the index, decoded at their stored times and
    described with their stored segments. "answer": frames of a whole video chosen for questions (`shown`).
    `has_context`: the first clip is the frame before the item; it gives the first boundary score and is then dropped.
    """

    source: Source
    kind: ItemKind
    index: int
    n_items: int
    clips: tuple[ClipPlan, ...]
    targets: tuple[Target, ...]
    fingerprints: Mapping[Target, str]
    has_context: bool = False
    stored: tuple[StoredSegments, ...] = ()
    shown: tuple[Shown, ...] = ()

    @property
    def key(self) -> str:
        """The name of its staged file: same work, same name; anything that changes its rows changes it."""
        recipe = digest(*(self.fingerprints[target] for target in sorted({*self.targets, EMBED})))
        times = digest(*(repr(c.targets_s) for c in self.clips))
        return digest("item", self.source.video_id, self.source.version, self.kind, str(self.index), recipe, times)


@dataclass(frozen=True)
class Failure:
    """Why an item (or video) has no rows."""

    stage: str
    error_class: str
    message: str

    @classmethod
    def of(cls, stage: str, error: VideoError) -> "Failure":
        return cls(stage, type(error).__name__, str(error)[:1000])

    @property
    def transient(self) -> bool:
        return VIDEO_ERRORS[self.error_class].transient


@dataclass(frozen=True)
class Probed:
    """A video after the probe: its facts and clips, or why there are none."""

    source: Source
    probe: Probe | None
    clips: tuple[ClipPlan, ...]
    failure: Failure | None
    seconds: float
    bytes_read: int | None = None  # from remote storage; None for local files


@dataclass(frozen=True)
class Receipt:
    """What became of one item: enough to write its video's row without opening the staged file."""

    item_key: str
    video_id: str
    kind: str
    first_clip: int
    n_clips: int
    decoder: str | None
    coverage: float | None
    failure: Failure | None
    seconds: Mapping[str, float] = field(default_factory=dict)
    bytes_read: int | None = None  # from remote storage; None for local files

    @property
    def is_staged(self) -> bool:
        """Whether the item left rows: it may have failed and still have some clips."""
        return self.n_clips > 0


def cut_into_items(
    probed: Probed, targets: Sequence[Target], fingerprints: Mapping[Target, str], clips_per_item: int
) -> list[Item]:
    """A video's clips in runs of `clips_per_item`; every run but the first carries the frame before it as context."""
    runs = [probed.clips[i : i + clips_per_item] for i in range(0, len(probed.clips), clips_per_item)]
    items = []
    for index, run in enumerate(runs):
        context: tuple[ClipPlan, ...] = ()
        if index > 0 and (before_s := run[0].before_s) is not None:
            context = (ClipPlan(runs[index - 1][-1].clip_index, before_s, run[0].start_s, (before_s,)),)
        items.append(
            Item(
                source=probed.source,
                kind="index",
                index=index,
                n_items=len(runs),
                clips=(*context, *run),
                targets=tuple(targets),
                fingerprints=fingerprints,
                has_context=bool(context),
            )
        )
    return items
