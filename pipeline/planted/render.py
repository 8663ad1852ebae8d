"""Scenes to pixels, with nuisance that says nothing about any answer."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.planted.scene import Clip, Look, Room, Scene
from pipeline.planted.sprites import sprite
from pipeline.planted.vocabulary import (
    CELL_PX,
    CLUTTER_GREYS,
    COLOURS,
    FRAME_PX,
    SIZES,
    TEXTURE_LIFT,
    TEXTURE_PERIOD_PX,
    TONES,
)

Pixels = npt.NDArray[np.uint8]  # (..., H, W, 3)


@dataclass(frozen=True)
class Nuisance:
    """How one clip's picture differs from the plain drawing. Drawn per clip; noise anew in every frame."""

    brightness: float = 1.0
    noise_sigma: float = 0.0  # in steps of 0-255
    blur: bool = False
    extent: float = 1.0  # factor on the size of things
    tint: tuple[float, float, float] = (0.0, 0.0, 0.0)  # added to the channels

    @staticmethod
    def sample(rng: np.random.Generator, strong: bool = False) -> "Nuisance":
        """Mild as in the benchmark (brightness +-8%, sigma 2-6); `strong` is wider, for training."""
        if not strong:
            return Nuisance(float(rng.uniform(0.92, 1.08)), float(rng.uniform(2, 6)))
        tint = rng.uniform(-10, 10, 3)
        return Nuisance(
            float(rng.uniform(0.85, 1.12)),
            float(rng.uniform(0, 7)),
            bool(rng.random() < 0.3),
            float(rng.choice([0.9, 0.95, 1.0, 1.05, 1.1])),
            (float(tint[0]), float(tint[1]), float(tint[2])),
        )


def backdrop(room: Room, side: int, scale: float) -> npt.NDArray[np.float32]:
    """The empty room, (side, side, 3), drawn `scale` times as large as in the 64 x 64 frame."""
    place = (np.arange(side) + 0.5) / scale  # in pixels of the 64 x 64 frame
    lines = (place % TEXTURE_PERIOD_PX) >= TEXTURE_PERIOD_PX / 2
    if room.texture == "striped":
        lift = np.repeat(lines[:, None], side, 1)
    elif room.texture == "barred":
        lift = np.repeat(lines[None, :], side, 0)
    elif room.texture == "dotted":
        off = place % TEXTURE_PERIOD_PX - TEXTURE_PERIOD_PX / 2
        lift = np.hypot(off[:, None], off[None, :]) <= 2.0
    else:
        lift = np.zeros((side, side), bool)
    tone = np.array(TONES[room.tone], np.float32)
    picture: npt.NDArray[np.float32] = tone + np.float32(TEXTURE_LIFT) * lift[:, :, None].astype(np.float32)
    return picture


def draw_thing(canvas: npt.NDArray[np.float32], look: Look, rgb: tuple[int, int, int], extent: float) -> None:
    """Blend one thing onto `canvas` in place."""
    scale = canvas.shape[0] / FRAME_PX
    span = 2 if look.size == "large" else 1
    centre_y = (look.cell[0] + span / 2) * CELL_PX * scale
    centre_x = (look.cell[1] + span / 2) * CELL_PX * scale
    dy, dx = (offset * scale for offset in look.offset_px)
    mask = sprite(look.kind, SIZES[look.size] * extent * scale, dx, dy)
    half = mask.shape[0] // 2
    top, left = round(centre_y) - half, round(centre_x) - half
    y0, x0 = max(0, -top), max(0, -left)
    y1 = min(mask.shape[0], canvas.shape[0] - top)
    x1 = min(mask.shape[1], canvas.shape[1] - left)
    patch = canvas[top + y0 : top + y1, left + x0 : left + x1]
    patch += mask[y0:y1, x0:x1, None] * (np.array(rgb, np.float32) - patch)


def draw(scene: Scene, frame: int, side: int = FRAME_PX, extent: float = 1.0) -> npt.NDArray[np.float32]:
    """The plain drawing of one frame, (side, side, 3) in 0-255, without nuisance."""
    canvas = backdrop(scene.room, side, side / FRAME_PX)
    for look in scene.clutter:
        grey = CLUTTER_GREYS[int(look.colour)]
        draw_thing(canvas, look, (grey, grey, grey), extent)
    for look in scene.looks(frame):
        draw_thing(canvas, look, COLOURS[look.colour], extent)
    return canvas


def disturb(picture: npt.NDArray[np.float32], nuisance: Nuisance, rng: np.random.Generator) -> Pixels:
    """`picture` as a camera of this clip would have it, (side, side, 3) uint8."""
    if nuisance.blur:
        padded = np.pad(picture, ((1, 1), (1, 1), (0, 0)), mode="edge")
        rows = 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]
        picture = 0.25 * rows[:, :-2] + 0.5 * rows[:, 1:-1] + 0.25 * rows[:, 2:]
    picture = picture * np.float32(nuisance.brightness) + np.array(nuisance.tint, np.float32)
    if nuisance.noise_sigma:
        picture = picture + nuisance.noise_sigma * rng.standard_normal(picture.shape, np.float32)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def render(clip: Clip, rng: np.random.Generator, nuisance: Nuisance, side: int = FRAME_PX) -> Pixels:
    """All frames of a clip, (n_frames, side, side, 3) uint8; what stands still is drawn once and disturbed anew."""
    frames = []
    key: object = None
    for index in range(clip.n_frames):
        scene = clip.scene_at(index)
        if key != (key := (scene.start, scene.looks(index))):
            plain = draw(scene, index, side, nuisance.extent)
        frames.append(disturb(plain, nuisance, rng))
    return np.stack(frames)
