"""The scene grammar: a clip is a run of scenes with exact cuts; a scene is a room, things in it and what befalls them.

Times are frame numbers inside the clip; intervals are half-open. Cells are (row, column), (0, 0) top left.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from pipeline.planted.vocabulary import CELL_PX, COLOURS, DIGITS, DIRECTIONS, GRID, SHAPES, TEXTURES, TONES

Focus = Literal[
    "presence", "colour", "shape", "count", "order", "quarter", "direction", "change", "flash", "small", "room", "after"
]
FOCUSES: tuple[Focus, ...] = (
    "presence", "colour", "shape", "count", "order", "quarter", "direction", "change", "flash", "small", "room",
    "after",
)  # fmt: skip
Cell = tuple[int, int]


@dataclass(frozen=True)
class Room:
    tone: str
    texture: str


@dataclass(frozen=True)
class Look:
    """One thing as one frame shows it."""

    kind: str
    colour: str
    size: str
    cell: Cell  # the top left one when large
    offset_px: tuple[float, float] = (0.0, 0.0)  # sub-cell jitter, (dy, dx)

    def cells(self) -> tuple[Cell, ...]:
        """The cells it covers."""
        row, col = self.cell
        span = 2 if self.size == "large" else 1
        return tuple((r, c) for r in range(row, row + span) for c in range(col, col + span))


@dataclass(frozen=True)
class Thing:
    """A thing of a scene and its event: none, or exactly one of `steps`, `becomes`, `visible`."""

    look: Look
    steps: tuple[Cell, ...] = ()
    """Cells it moves through after its first, one a frame from `moves_at`."""
    moves_at: int = 0
    becomes: str = ""
    """The kind it changes into at frame `changes_at`, in place."""
    changes_at: int = 0
    visible: tuple[int, int] | None = None
    """Frames in which it is there, when that is not the whole scene."""
    flashes: bool = False

    def at(self, frame: int) -> Look | None:
        """How `frame` shows it, None when it is not there."""
        if self.visible is not None and not self.visible[0] <= frame < self.visible[1]:
            return None
        if self.becomes and frame >= self.changes_at:
            return replace(self.look, kind=self.becomes)
        if self.steps and frame >= self.moves_at:
            return replace(self.look, cell=self.steps[min(frame - self.moves_at, len(self.steps) - 1)])
        return self.look

    def kinds(self) -> tuple[str, ...]:
        return (self.look.kind, self.becomes) if self.becomes else (self.look.kind,)


@dataclass(frozen=True)
class Scene:
    start: int
    end: int
    room: Room
    things: tuple[Thing, ...]
    clutter: tuple[Look, ...] = ()  # `colour` is a grey level's index there

    def looks(self, frame: int) -> tuple[Look, ...]:
        return tuple(look for thing in self.things if (look := thing.at(frame)) is not None)

    def frames_of(self, thing: Thing) -> range:
        start, end = (self.start, self.end) if thing.visible is None else thing.visible
        return range(start, end)


@dataclass(frozen=True)
class Clip:
    n_frames: int
    scenes: tuple[Scene, ...]
    focus: Focus
    planted: str = ""
    """The shape a focus was planted with, where it has one."""

    def scene_at(self, frame: int) -> Scene:
        return next(scene for scene in self.scenes if scene.start <= frame < scene.end)

    def cuts(self) -> tuple[int, ...]:
        """First frame of every scene but the first."""
        return tuple(scene.start for scene in self.scenes[1:])

    def changes(self) -> tuple[int, ...]:
        """Frames that show something else than the one before: cuts, and what appears, goes, moves or turns."""
        scenes = [self.scene_at(frame) for frame in range(self.n_frames)]
        shown = [(scene.start, scene.looks(frame)) for frame, scene in enumerate(scenes)]
        return tuple(frame for frame in range(1, self.n_frames) if shown[frame] != shown[frame - 1])


@dataclass
class _Draft:
    """A scene being filled: which cells are free, which shapes and colours must not be used."""

    start: int
    end: int
    room: Room
    rng: np.random.Generator
    things: list[Thing] = field(default_factory=list)
    taken: set[Cell] = field(default_factory=set)

    def place(self, kind: str, colour: str, size: str, cell: Cell | None = None) -> Look | None:
        """A look in a free cell, which it takes; None when nothing is free."""
        span = 2 if size == "large" else 1
        room_for = [
            (r, c)
            for r in range(GRID - span + 1)
            for c in range(GRID - span + 1)
            if all((r + i, c + j) not in self.taken for i in range(span) for j in range(span))
        ]
        if cell is None:
            if not room_for:
                return None
            cell = room_for[int(self.rng.integers(len(room_for)))]
        slack = {"small": 3.0, "medium": 1.0, "large": 1.5}[size]
        dy, dx = (float(v) for v in np.round(self.rng.uniform(-slack, slack, 2) * 2) / 2)
        look = Look(kind, colour, size, cell, (dy, dx))
        self.taken.update(look.cells())
        return look

    def add(self, kind: str, colour: str, size: str = "medium") -> None:
        look = self.place(kind, colour, size)
        if look is not None:
            self.things.append(Thing(look))


def _pick(rng: np.random.Generator, options: list[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _cuts(rng: np.random.Generator, n_frames: int, n_scenes: int, longest: int) -> list[int]:
    """n_scenes + 1 borders, every scene at least one frame (two where there is room), one at least `longest` frames."""
    shortest = 2 if n_frames >= 2 * n_scenes + longest else 1
    spare = n_frames - shortest * n_scenes
    lengths = np.full(n_scenes, shortest)
    if longest > shortest:
        lengths[int(rng.integers(n_scenes))] += longest - shortest
        spare -= longest - shortest
    lengths += rng.multinomial(spare, rng.dirichlet(np.full(n_scenes, 4.0)))
    return [0, *np.cumsum(lengths).tolist()]


_FEWEST_SCENES: dict[Focus, int] = {"count": 4, "order": 3, "room": 3, "after": 3}
_LONGEST: dict[Focus, int] = {"direction": 4, "change": 4, "flash": 3}


def _n_scenes(rng: np.random.Generator, n_frames: int, focus: Focus) -> int:
    """None, a few (2-4) or many (8 and more) cuts, as the frames and the focus allow."""
    fewest = min(_FEWEST_SCENES.get(focus, 1), n_frames)
    most = max(fewest, min(12, n_frames // 2 if n_frames > 6 else n_frames) - (_LONGEST.get(focus, 1) - 1) // 2)
    if focus == "flash" and rng.random() < 0.6:
        return 1
    low, high = ((1, 1), (3, 5), (5, 8), (9, 12))[int(rng.choice(4, p=[0.15, 0.4, 0.25, 0.2]))]
    return int(np.clip(rng.integers(low, high + 1), fewest, most))


def sample_clip(rng: np.random.Generator, n_frames: int, focus: Focus) -> Clip:
    """A random clip of `n_frames` that can be asked about `focus` (short clips may not allow every focus)."""
    n_scenes = _n_scenes(rng, n_frames, focus)
    borders = _cuts(rng, n_frames, n_scenes, min(_LONGEST.get(focus, 1), n_frames - n_scenes + 1))
    rooms = rng.choice(len(TONES) * len(TEXTURES), n_scenes, replace=False)
    tones = list(TONES)
    drafts = [
        _Draft(borders[i], borders[i + 1], Room(tones[rooms[i] // 4], TEXTURES[rooms[i] % 4]), rng)
        for i in range(n_scenes)
    ]
    shape, colour = _pick(rng, list(SHAPES)), _pick(rng, list(COLOURS))
    closed_shapes, closed_colours = _plant(rng, drafts, focus, shape, colour)
    _fill(rng, drafts, focus, closed_shapes, closed_colours)
    scenes = tuple(
        Scene(d.start, d.end, d.room, tuple(d.things[i] for i in rng.permutation(len(d.things))), _clutter(rng, d))
        for d in drafts
    )
    return Clip(n_frames, scenes, focus, shape)


def _fill(
    rng: np.random.Generator, drafts: list[_Draft], focus: Focus, closed_shapes: set[str], closed_colours: set[str]
) -> None:
    """One or two bystanders a scene (one where scenes are many), of shapes and colours that keep the answer unique."""
    shapes = [s for s in SHAPES if s not in closed_shapes]
    colours = [c for c in COLOURS if c not in closed_colours]
    for draft in drafts:
        wanted = 1 if len(drafts) > 5 else int(rng.integers(1, 4 if len(drafts) < 4 else 3))
        if focus == "after":
            wanted = 1
        while len(draft.things) < wanted:
            kinds = [s for s in shapes if all(s != t.look.kind for t in draft.things)]
            if not kinds:
                break
            size = "medium" if focus == "small" or rng.random() < 0.75 else _pick(rng, ["small", "large"])
            free = len(draft.things)
            draft.add(_pick(rng, kinds), _pick(rng, colours), size)
            if len(draft.things) == free and size != "large":
                break


def _clutter(rng: np.random.Generator, draft: _Draft) -> tuple[Look, ...]:
    if rng.random() < 0.5:
        return ()
    looks = [
        draft.place(_pick(rng, list(SHAPES)), str(int(rng.integers(3))), "small") for _ in range(rng.integers(1, 4))
    ]
    return tuple(look for look in looks if look is not None)


def _plant(
    rng: np.random.Generator, drafts: list[_Draft], focus: Focus, shape: str, colour: str
) -> tuple[set[str], set[str]]:
    """Plant what `focus` asks about; the shapes and colours nothing else may then have."""
    host = drafts[int(rng.integers(len(drafts)))]
    if focus in ("presence", "colour", "quarter"):
        _plant_one(rng, drafts, host, shape, colour, focus)
        return {shape}, set()
    if focus == "shape":
        host.add(shape, colour, "medium")
        return set(), {colour}
    if focus == "count":
        k = int(rng.integers(1, min(4, len(drafts)) + 1))
        for i in rng.choice(len(drafts), k, replace=False):
            drafts[i].add(shape, _pick(rng, list(COLOURS)), "medium")
        return {shape}, set()
    if focus == "order":
        names = [str(s) for s in rng.choice(SHAPES, min(3, len(drafts)), replace=False)]
        for name, i in zip(names, rng.choice(len(drafts), len(names), replace=False), strict=True):
            drafts[i].add(name, _pick(rng, list(COLOURS)), "medium")
        return set(names), set()
    if focus == "small":
        host.add(shape, colour, "small")
        return set(), set()
    if focus == "room":
        n = min(len(drafts), int(rng.integers(2, 4)))
        hues = rng.permutation(list(COLOURS))
        for i, draft in enumerate(rng.permutation(np.arange(len(drafts)))[:n]):
            drafts[draft].add(shape, str(hues[i]), "medium")
        return {shape}, set()
    if focus in ("direction", "change", "flash"):
        _plant_event(rng, max(drafts, key=lambda d: d.end - d.start), colour, focus)
    return set(), set()


def _plant_one(
    rng: np.random.Generator, drafts: list[_Draft], host: _Draft, shape: str, colour: str, focus: Focus
) -> None:
    """One thing of a shape nothing else has; for `quarter` it appears at a frame drawn evenly over the clip."""
    if focus != "quarter":
        host.add(shape, colour, "medium")
        return
    appears = int(rng.integers(drafts[-1].end))
    host = next(d for d in drafts if d.start <= appears < d.end)
    look = host.place(shape, colour, "medium")
    if look is not None:
        host.things.append(Thing(look, visible=None if appears == host.start else (appears, host.end)))


def _plant_event(rng: np.random.Generator, host: _Draft, colour: str, focus: Focus) -> None:
    """A mover, a digit that changes in place, or a digit that flashes, inside `host`."""
    length = host.end - host.start
    if focus == "direction":
        if length < 2:
            return
        (dr, dc), n = (
            list(DIRECTIONS.values())[int(rng.integers(4))],
            int(rng.integers(1, min(GRID - 1, length - 1) + 1)),
        )
        row = int(rng.integers(max(0, -dr * n), GRID - max(0, dr * n)))
        col = int(rng.integers(max(0, -dc * n), GRID - max(0, dc * n)))
        look = host.place(_pick(rng, list(SHAPES)), colour, "medium", (row, col))
        assert look is not None
        steps = tuple((row + dr * k, col + dc * k) for k in range(1, n + 1))
        host.taken.update(steps)
        host.things.append(Thing(look, steps=steps, moves_at=host.start + int(rng.integers(1, length - n + 1))))
        return
    first, second = (str(d) for d in rng.choice(DIGITS, 2, replace=False))
    look = host.place(first, colour, "medium")
    assert look is not None
    if focus == "change" and length >= 2:
        host.things.append(Thing(look, becomes=second, changes_at=host.start + int(rng.integers(1, length))))
    elif focus == "flash" and length >= 3:
        shown = int(rng.integers(1, 3 if length >= 4 else 2))
        begin = host.start + int(rng.integers(1, length - shown))
        host.things.append(Thing(look, visible=(begin, begin + shown), flashes=True))
        host.add(second, _pick(rng, list(COLOURS)), "medium")


assert CELL_PX * GRID == 64
