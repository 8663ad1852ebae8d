"""The grammar keeps its promises for every focus and length."""

import itertools

import numpy as np
import pytest

from pipeline.planted.scene import FOCUSES, Clip, Focus, sample_clip
from pipeline.planted.vocabulary import GRID


def clips(n_frames: int, focus: Focus, count: int = 25) -> list[Clip]:
    return [sample_clip(np.random.default_rng(seed), n_frames, focus) for seed in range(count)]


@pytest.mark.parametrize("focus", FOCUSES)
@pytest.mark.parametrize("n_frames", [6, 17, 32])
def test_scenes_tile_the_clip_and_things_never_overlap(focus: Focus, n_frames: int) -> None:
    for clip in clips(n_frames, focus):
        edges = [0, *clip.cuts(), n_frames]
        assert [(s.start, s.end) for s in clip.scenes] == list(itertools.pairwise(edges))
        assert all(s.start < s.end for s in clip.scenes)
        assert len({s.room for s in clip.scenes}) == len(clip.scenes)
        for frame in range(n_frames):
            scene = clip.scene_at(frame)
            cells = [cell for look in (*scene.looks(frame), *scene.clutter) for cell in look.cells()]
            assert len(cells) == len(set(cells))
            assert all(0 <= r < GRID and 0 <= c < GRID for r, c in cells)


def test_the_same_seed_gives_the_same_clip() -> None:
    assert clips(32, "order", 5) == clips(32, "order", 5)


def test_a_mover_moves_one_cell_a_frame_along_one_line() -> None:
    for clip in clips(32, "direction"):
        mover = next(t for s in clip.scenes for t in s.things if t.steps)
        path = [mover.look.cell, *mover.steps]
        deltas = {(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(path)}
        assert len(deltas) == 1
        assert sum(map(abs, deltas.pop())) == 1


def test_cuts_come_in_all_strata() -> None:
    counts = {len(clip.cuts()) for clip in clips(32, "colour", 200)}
    assert 0 in counts
    assert counts & {2, 3, 4}
    assert max(counts) >= 8
