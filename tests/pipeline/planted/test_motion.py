"""The moving set: the same every time, its answers true and its evidence where the picture shows it."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.planted.items import Item, balanced_items, benchmark_items, scene_hash
from pipeline.planted.motion import HALF, MARGIN_PX, SMALLEST_ZOOM, Camera, film
from pipeline.planted.questions import TWELVE
from pipeline.planted.vocabulary import CELL_PX, COLOURS, GRID

CELL = 2 * CELL_PX  # in the film's pixels


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return benchmark_items("dev", 48, "moving")


def camera_of(item: Item) -> Camera:
    assert item.camera is not None
    return item.camera


def clean(item: Item) -> Item:
    """The same clip and camera path without noise, flicker and fades."""
    camera = camera_of(item)
    return replace(
        item, camera=replace(camera, gain=(1.0,) * 32, read_noise=0.0, shot_noise=0.0, fades=frozenset())
    )  # fmt: skip


def test_items_are_the_same_every_time_and_share_nothing_with_the_still_set(items: list[Item]) -> None:
    again = benchmark_items("dev", 48, "moving")
    assert again == items
    assert (again[5].frames() == items[5].frames()).all()
    assert items[5].frames().shape == (32, 64, 64, 3)
    still = benchmark_items("dev", 48)
    assert not {i.seed for i in still} & {i.seed for i in items}
    assert not {scene_hash(i.clip) for i in still} & {scene_hash(i.clip) for i in items}
    assert {i.question.type for i in items} == set(TWELVE)


def test_what_is_asked_about_is_in_the_picture_where_the_evidence_says() -> None:
    """In every frame of the evidence a pixel of one of its cells has the colour, no pixel of any other cell has."""
    for item in balanced_items("dev", "colour", 8, of_set="moving"):
        frames = film(item.clip, camera_of(clean(item)), np.random.default_rng(0)).astype(float)
        near = np.abs(frames - np.array(COLOURS[item.question.answer])).max(-1) < 30  # (32, 128, 128)
        for frame in sorted({frame for frame, _ in item.question.evidence[0]}):
            cells = {cell for at, cell in item.question.evidence[0] if at == frame}
            shown = near[frame].reshape(GRID, CELL, GRID, CELL).sum((1, 3)).flatten()  # pixels of each cell
            assert sum(shown[list(cells)]) >= 20, (item.item_id, frame)
            same_colour = [look for look in item.clip.scene_at(frame).looks(frame) if
                           look.colour == item.question.answer]  # fmt: skip
            if len(same_colour) == 1:
                assert max(shown[[c for c in range(GRID * GRID) if c not in cells]]) <= 0.25 * sum(shown), item.item_id


def test_no_place_of_the_evidence_is_lost(items: list[Item]) -> None:
    for item in items:
        camera = camera_of(item)
        for frame in range(32):
            for cell in range(GRID * GRID):
                places = camera.places(frame, cell)
                assert places, (item.item_id, frame, cell)
                assert all(0 <= place < GRID * GRID for place in places)
        assert all(group for group in item.question.evidence)


def test_a_camera_that_stands_still_changes_no_place(items: list[Item]) -> None:
    still = replace(camera_of(items[0]), zoom=(1.0,) * 32, shift_px=((0.0, 0.0),) * 32)
    assert [still.places(3, cell) for cell in range(16)] == [[cell] for cell in range(16)]
    moved = replace(still, shift_px=((CELL_PX, 0.0),) * 32)
    assert moved.places(0, 1) == [5], "a cell's height down: the row below"


def test_the_camera_stays_inside_the_room_and_does_not_pan_over_what_moves(items: list[Item]) -> None:
    panned = 0
    for item in items:
        camera = camera_of(item)
        for zoom, (dy, dx) in zip(camera.zoom, camera.shift_px, strict=True):
            assert SMALLEST_ZOOM <= zoom <= 1
            assert max(abs(dy), abs(dx)) <= HALF * (1 - zoom) + 1e-9
            assert (HALF + max(abs(dy), abs(dx))) / zoom <= HALF + MARGIN_PX, "the room's walls are never seen"
        for scene in item.clip.scenes:
            rows = np.array(camera.shift_px)[scene.start : scene.end]
            if any(thing.steps for thing in scene.things):
                assert np.abs(rows.mean(0)).max() < 1.5
                assert not camera.passers
            elif len(rows) > 4:
                panned += bool(np.abs(rows[0] - rows[-1]).max() > 4)
    assert panned > 10


def test_neighbouring_frames_never_repeat(items: list[Item]) -> None:
    """What makes the set hard for methods that look for repetition: on the still set most of a picture repeats."""
    for item in items[::8]:
        frames = item.frames().astype(int)
        assert (np.abs(frames[1:] - frames[:-1]).mean((1, 2, 3)) > 0.5).all()
