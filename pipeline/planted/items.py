"""The benchmark's items: a seed decides each, splits never share seeds, and answers are balanced by rejection."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np

from pipeline.planted.motion import Camera, film
from pipeline.planted.questions import TWELVE, Question, QuestionType, ask
from pipeline.planted.render import Nuisance, Pixels, render
from pipeline.planted.scene import Clip, sample_clip
from pipeline.planted.video import round_trip
from pipeline.planted.vocabulary import COLOURS, SHAPES

Kind = Literal["still", "moving"]
"""The two sets: a camera that stands still, and one that moves (`pipeline.planted.motion`)."""
VERSIONS: dict[Kind, str] = {"still": "shapestream|v1", "moving": "shapestream-moving|v1"}
N_FRAMES = 32
N_BINS = 5
HELD_OUT_WORDING = 3
HELD_OUT_PAIRS = frozenset((shape, list(COLOURS)[(3 * i + 1) % 8]) for i, shape in enumerate(SHAPES))
"""Eight of the 64 (shape, colour) pairs: never asked about together in training, though both parts are."""


def seed_of(split: str, kind: str, index: int, of_set: Kind = "still") -> int:
    """The seed of one item: SHA-256 of its name, 64 bits of it."""
    return int.from_bytes(hashlib.sha256(f"{VERSIONS[of_set]}|{split}|{kind}|{index}".encode()).digest()[:8], "big")


@dataclass(frozen=True)
class Item:
    """One clip with one question."""

    item_id: str
    seed: int
    clip: Clip
    question: Question
    wording: int
    compressed: bool
    """Whether the frames go through H.264 first (one item in ten; with a moving camera all do)."""
    camera: Camera | None = None
    """None where it stands still."""

    def frames(self) -> Pixels:
        """(32, 64, 64, 3) uint8, the same every time."""
        rng = np.random.default_rng(self.seed + 1)
        if self.camera is not None:
            return round_trip(film(self.clip, self.camera, rng), self.camera.crf)
        nuisance = Nuisance.sample(rng)
        if self.compressed:
            return round_trip(render(self.clip, rng, nuisance, side=256))
        return render(self.clip, rng, nuisance)

    @property
    def time_bin(self) -> int:
        """Which fifth of the clip the middle of the deciding evidence lies in."""
        frames = [frame for frame, _ in self.question.evidence[-1]]
        return min(N_BINS - 1, int(N_BINS * (min(frames) + max(frames) + 1) / 2 / self.clip.n_frames))

    @property
    def cuts_stratum(self) -> str:
        n = len(self.clip.cuts())
        return "0" if n == 0 else "1-4" if n <= 4 else "5-7" if n <= 7 else "8+"

    @property
    def held_out_pair(self) -> bool:
        """Whether the asked thing is of a pair training never asked about."""
        scene = self.clip.scenes[self.question.scene]
        return self.question.type in ("colour", "shape") and any(
            {t.look.kind, t.look.colour} & {self.question.answer} and (t.look.kind, t.look.colour) in HELD_OUT_PAIRS
            for t in scene.things
        )


def scene_hash(clip: Clip) -> str:
    """Of the scene graph's canonical JSON, jitter included: equal only for equal clips."""
    return hashlib.sha256(json.dumps(asdict(clip), sort_keys=True).encode()).hexdigest()


def _candidates(split: str, type_: QuestionType, n_frames: int, of_set: Kind) -> Iterator[Item]:
    """Items of one type in the order of their seeds, unbalanced; the camera still stands still."""
    index, prefix = 0, "" if of_set == "still" else f"{of_set}/"
    while True:
        seed = seed_of(split, type_, index, of_set)
        rng = np.random.default_rng(seed)
        clip = sample_clip(rng, n_frames, type_)  # type: ignore[arg-type]  # the twelve types are the foci
        wording = int(rng.integers(4))
        question = ask(clip, type_, rng, wording)
        if question is not None:
            yield Item(f"{prefix}{split}/{type_}/{index:06d}", seed, clip, question, wording, bool(rng.random() < 0.1))
        index += 1


def _marks(item: Item) -> list[tuple[str, object]]:
    """What must be spread evenly: answer, its place among the choices, time, and each pair of these."""
    question = item.question
    place = question.choices.index(question.answer)
    if question.type == "order":
        return [("place", place)]
    if question.type in ("quarter", "count"):
        return [("answer", question.answer), ("place", place), ("answer, place", (question.answer, place))]
    bin_ = item.time_bin
    return [
        ("answer", question.answer),
        ("place", place),
        ("time", bin_),
        ("answer, place", (question.answer, place)),
        ("answer, time", (question.answer, bin_)),
        ("place, time", (place, bin_)),
    ]


_VALUES = {
    "presence": 8, "colour": 8, "shape": 8, "count": 4, "order": 1, "quarter": 4, "direction": 4, "change": 10,
    "flash": 10, "small": 8, "room": 8, "after": 8,
}  # fmt: skip


def _caps(type_: QuestionType, count: int) -> dict[str, float]:
    """How often each value of a mark may occur among `count` items: its even share, plus one."""
    n = _VALUES[type_]
    cells = {
        "answer": n,
        "place": 4,
        "time": N_BINS,
        "answer, place": 4 * n,
        "answer, time": N_BINS * n,
        "place, time": 4 * N_BINS,
    }
    return {name: count / size + 1 for name, size in cells.items()}


def _filmed(item: Item) -> Item:
    """The item through a camera of its own."""
    camera = Camera.sample(np.random.default_rng(item.seed + 2), item.clip)
    return replace(item, camera=camera, compressed=True, question=camera.seen(item.question))


def balanced_items(
    split: str, type_: QuestionType, count: int, n_frames: int = N_FRAMES, of_set: Kind = "still"
) -> list[Item]:
    """`count` items of one type, whose answers, places and times are even, one by one and in pairs.

    Candidates come in order of their seeds; one that would overfill a mark is left out. Nothing but the scene graph
    decides, so no model's answer can bear on which items are in.
    """
    caps, used, items = _caps(type_, count), Counter[tuple[str, object]](), list[Item]()
    refused = 0
    for item in _candidates(split, type_, n_frames, of_set):
        marks = _marks(item)
        if any(used[mark] + 1 > caps[mark[0]] + refused // (40 * count) for mark in marks):
            refused += 1
            continue
        used.update(marks)
        items.append(item if of_set == "still" else _filmed(item))
        if len(items) == count:
            return items
    raise AssertionError("candidates never end")


def benchmark_items(split: str, count: int, of_set: Kind = "still") -> list[Item]:
    """`count` items, a twelfth of each type. Raises ValueError when `count` does not divide by twelve."""
    if count <= 0 or count % len(TWELVE):
        raise ValueError(f"expected a positive multiple of {len(TWELVE)} items, got {count}")
    return [item for type_ in TWELVE for item in balanced_items(split, type_, count // len(TWELVE), of_set=of_set)]
