"""Planted clips as a moving, noisy camera and a codec at a low rate would bring them: the set `moving`.

The camera pans, zooms and shakes, brightness flickers, the sensor is noisy, grey shapes wander behind everything, and
some scenes fade into the next. Whatever is asked about stays in the picture, so every answer stays true. A scene with
something that moves is not panned: in a plain room nothing else would tell the two movements apart.

Lengths are in pixels of the 64 x 64 frame.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline.planted.questions import Group, Question
from pipeline.planted.render import Pixels, backdrop, draw_thing
from pipeline.planted.scene import Clip, Look, Scene
from pipeline.planted.vocabulary import CELL_PX, CLUTTER_GREYS, COLOURS, FRAME_PX, GRID, SHAPES

SCALE = 2  # pictures are drawn and coded at 128 x 128
MARGIN_PX = 32  # of the room around the 64 x 64 that scenes use; a multiple of the texture's period
SMALLEST_ZOOM = 0.75
LEAST_SHARE = 0.2  # of a cell's area that a cell of the picture must show to count as evidence
HALF = FRAME_PX / 2


@dataclass(frozen=True)
class Passer:
    """A small grey shape that crosses the room behind everything, there and back."""

    kind: str
    grey: int
    start_px: tuple[float, float]
    step_px: tuple[float, float]

    def look(self, frame: int) -> Look:
        y, x = (_there_and_back(start + frame * step) for start, step in zip(self.start_px, self.step_px, strict=True))
        return Look(self.kind, str(self.grey), "small", (0, 0), (y - CELL_PX / 2, x - CELL_PX / 2))


def _there_and_back(place: float) -> float:
    """A place on a line, folded into 0..64."""
    return FRAME_PX - abs(place % (2 * FRAME_PX) - FRAME_PX)


@dataclass(frozen=True)
class Camera:
    """How one clip is filmed. What is listed by frame has one entry for each."""

    zoom: tuple[float, ...]
    """Size of things in the picture, at most 1."""
    shift_px: tuple[tuple[float, float], ...]
    """Where the room's middle stands from the picture's, (dy, dx)."""
    gain: tuple[float, ...]
    """Brightness: it flickers."""
    read_noise: float
    shot_noise: float
    """The noise of a pixel of value v has the deviation sqrt(read_noise^2 + shot_noise * v)."""
    crf: int
    """Quality of H.264; higher is worse."""
    fades: frozenset[int]
    """Cuts, by the first frame after them, at which the two scenes show through each other."""
    passers: tuple[Passer, ...]

    @staticmethod
    def sample(rng: np.random.Generator, clip: Clip) -> "Camera":
        zoom, shift = np.empty(clip.n_frames), np.empty((clip.n_frames, 2))
        for scene in clip.scenes:
            own = slice(scene.start, scene.end)
            zoom[own], shift[own] = _path(rng, scene)
        shift += rng.normal(0, rng.uniform(0.3, 1.0), shift.shape)  # a hand
        room_for = HALF * (1 - zoom)[:, None]  # further, and something would leave the picture
        shift = np.clip(shift, -room_for, room_for)
        beat = rng.uniform(0.02, 0.08) * np.sin(np.arange(clip.n_frames) * rng.uniform(0.5, 3) + rng.uniform(0, 6.3))
        gain = rng.uniform(0.92, 1.08) * (1 + beat + rng.normal(0, 0.015, clip.n_frames))
        fades = frozenset(
            after.start
            for before, after in zip(clip.scenes, clip.scenes[1:], strict=False)
            if min(before.end - before.start, after.end - after.start) >= 3 and rng.random() < 0.5
        )
        still = any(thing.steps for scene in clip.scenes for thing in scene.things)  # "the object" must be one
        passers = tuple(_passer(rng) for _ in range(0 if still else int(rng.integers(0, 4))))
        return Camera(
            tuple(zoom.tolist()), tuple((float(y), float(x)) for y, x in shift), tuple(gain.tolist()),
            float(rng.uniform(2, 5)), float(rng.uniform(0.1, 0.4)), int(rng.integers(28, 35)), fades, passers,
        )  # fmt: skip

    def places(self, frame: int, cell: int) -> list[int]:
        """Cells of the picture that show the room's cell: row * 4 + column, those with a fair share of its area."""
        rows, columns = (self._spans(frame, axis, index) for axis, index in enumerate((cell // GRID, cell % GRID)))
        return [r * GRID + c for r, a in rows for c, b in columns if a * b >= LEAST_SHARE]

    def _spans(self, frame: int, axis: int, index: int) -> list[tuple[int, float]]:
        """Rows (axis 0) or columns of the picture that a row or column of the room falls on, and its shares."""
        zoom, shift = self.zoom[frame], self.shift_px[frame][axis]
        low, high = (zoom * (CELL_PX * i - HALF) + HALF + shift for i in (index, index + 1))
        overlaps = [(k, min(high, CELL_PX * (k + 1)) - max(low, CELL_PX * k)) for k in range(GRID)]
        return [(k, length / (high - low)) for k, length in overlaps if length > 0]

    def seen(self, question: Question) -> Question:
        """The question with its evidence where the picture shows it."""
        groups: list[Group] = [
            frozenset((frame, there) for frame, cell in group for there in self.places(frame, cell))
            for group in question.evidence
        ]
        return replace(question, evidence=tuple(groups))


def _path(rng: np.random.Generator, scene: Scene) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Zoom (n,) and shift (n, 2) over one scene: a pan, a zoom, or neither."""
    n = scene.end - scene.start
    along = np.linspace(0, 1, n) if n > 1 else np.zeros(1)
    kind = rng.choice(["pan", "zoom", "held"], p=[0.4, 0.3, 0.3])
    if kind == "pan" and not any(thing.steps for thing in scene.things):
        zoom = np.full(n, rng.uniform(SMALLEST_ZOOM, 0.85))
        way = rng.uniform(-1, 1, 2) * HALF * (1 - zoom[0])
        return zoom, (2 * along - 1)[:, None] * way
    if kind == "zoom":
        ends = (SMALLEST_ZOOM, 1.0) if rng.random() < 0.5 else (1.0, SMALLEST_ZOOM)
        return ends[0] + (ends[1] - ends[0]) * along, np.zeros((n, 2))
    return np.full(n, rng.uniform(0.8, 0.97)), np.zeros((n, 2))


def _passer(rng: np.random.Generator) -> Passer:
    y, x, dy, dx = rng.uniform((0, 0, -6, -6), (FRAME_PX, FRAME_PX, 6, 6))
    kind, grey = SHAPES[int(rng.integers(len(SHAPES)))], int(rng.integers(len(CLUTTER_GREYS)))
    return Passer(kind, grey, (float(y), float(x)), (float(dy), float(dx)))


def film(clip: Clip, camera: Camera, rng: np.random.Generator) -> Pixels:
    """All frames as the sensor sees them, before any codec, (n_frames, 128, 128, 3) uint8."""
    return np.stack([shot(clip, camera, frame, rng) for frame in range(clip.n_frames)])


def shot(clip: Clip, camera: Camera, frame: int, rng: np.random.Generator) -> Pixels:
    """One frame of the film, (128, 128, 3) uint8."""
    picture = _picture(clip.scene_at(frame), frame, camera)
    for cut, other in ((frame, frame - 1), (frame + 1, frame + 1)):
        if cut in camera.fades:
            picture = 0.75 * picture + 0.25 * _picture(clip.scene_at(other), other, camera)
    lit = picture * np.float32(camera.gain[frame])
    deviation = np.sqrt(np.float32(camera.read_noise**2) + np.float32(camera.shot_noise) * lit.clip(0))
    noisy = lit + deviation * rng.standard_normal(lit.shape, np.float32)
    seen: Pixels = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    return seen


def _picture(scene: Scene, frame: int, camera: Camera) -> npt.NDArray[np.float32]:
    """One frame without noise, (128, 128, 3) in 0-255."""
    around, side = MARGIN_PX * SCALE, FRAME_PX * SCALE
    canvas = backdrop(scene.room, side + 2 * around, SCALE)
    inside = canvas[around : around + side, around : around + side]
    for look in (*(passer.look(frame) for passer in camera.passers), *scene.clutter):
        grey = CLUTTER_GREYS[int(look.colour)]
        draw_thing(inside, look, (grey, grey, grey), 1.0)
    for look in scene.looks(frame):
        draw_thing(inside, look, COLOURS[look.colour], 1.0)
    for axis in (0, 1):
        canvas = _resampled(canvas, axis, camera.zoom[frame], camera.shift_px[frame][axis])
    return canvas


def _resampled(canvas: npt.NDArray[np.float32], axis: int, zoom: float, shift_px: float) -> npt.NDArray[np.float32]:
    """The picture's 128 rows (axis 0) or columns of the room's canvas, each between two of them."""
    place = (np.arange(FRAME_PX * SCALE) + 0.5) / SCALE  # in the picture
    there = ((place - HALF - shift_px) / zoom + HALF + MARGIN_PX) * SCALE - 0.5  # on the canvas
    low = np.clip(np.floor(there).astype(int), 0, canvas.shape[axis] - 2)
    share = (there - low).clip(0, 1).astype(np.float32)
    share = share[:, None, None] if axis == 0 else share[None, :, None]
    first, second = (np.take(canvas, low + i, axis=axis) for i in (0, 1))
    picture: npt.NDArray[np.float32] = first + share * (second - first)
    return picture
