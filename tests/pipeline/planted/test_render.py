"""Pixels show what the scene says, at any size and through a real file."""

import numpy as np
import pytest
from PIL import Image

from pipeline.planted.render import Nuisance, draw, render
from pipeline.planted.scene import Clip, Look, Room, Scene, Thing, sample_clip
from pipeline.planted.sprites import sprite
from pipeline.planted.video import round_trip
from pipeline.planted.vocabulary import CELL_PX, COLOURS, KINDS, TONES


def one_thing(kind: str, colour: str, size: str, cell: tuple[int, int]) -> Scene:
    return Scene(0, 4, Room("navy", "plain"), (Thing(Look(kind, colour, size, cell)),))


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize(("size", "cell", "area"), [("small", (2, 1), 1), ("medium", (0, 3), 1), ("large", (1, 2), 4)])
def test_a_square_fills_its_cells_with_exactly_its_colour(
    colour: str, size: str, cell: tuple[int, int], area: int
) -> None:
    picture = draw(one_thing("square", colour, size, cell), 0)
    is_thing = np.abs(picture - np.array(COLOURS[colour])).max(-1) < 1
    rows, cols = np.nonzero(is_thing)
    span = 2 if area == 4 else 1
    assert rows.min() >= cell[0] * CELL_PX
    assert rows.max() < (cell[0] + span) * CELL_PX
    assert cols.min() >= cell[1] * CELL_PX
    assert cols.max() < (cell[1] + span) * CELL_PX
    assert is_thing.sum() >= 25
    assert np.allclose(picture[-1, 0], TONES["navy"])


def test_every_kind_looks_different() -> None:
    masks = [sprite(kind, 14, 0, 0) for kind in KINDS]
    for i, a in enumerate(masks):
        assert a.max() == 1.0
        for b in masks[:i]:
            assert np.abs(a - b).sum() > 8


def test_a_drawing_at_256_brought_to_64_is_the_drawing_at_64() -> None:
    for seed in range(6):
        clip = sample_clip(np.random.default_rng(seed), 4, "colour")
        large = draw(clip.scenes[0], 0, side=256).astype(np.uint8)
        small = np.asarray(Image.fromarray(large).resize((64, 64), Image.Resampling.BOX), np.float32)
        assert np.abs(small - draw(clip.scenes[0], 0)).mean() < 3


def test_what_stands_still_differs_by_noise_alone() -> None:
    clip = Clip(4, (one_thing("star", "red", "medium", (1, 1)),), "colour")
    still = render(clip, np.random.default_rng(0), Nuisance())
    noisy = render(clip, np.random.default_rng(0), Nuisance(noise_sigma=4.0))
    assert (still == still[0]).all()
    difference = noisy[1].astype(int) - noisy[0]
    assert 4 < difference[difference != 0].std() < 9


def test_h264_and_back_keeps_every_thing_recognisable() -> None:
    clip = sample_clip(np.random.default_rng(5), 8, "order")
    rng = np.random.default_rng(0)
    through = round_trip(render(clip, rng, Nuisance(), side=256))
    plain = render(clip, rng, Nuisance())
    assert through.shape == plain.shape
    assert np.abs(through.astype(int) - plain).mean() < 5


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="no such kind"):
        sprite("hexagon", 14, 0, 0)
