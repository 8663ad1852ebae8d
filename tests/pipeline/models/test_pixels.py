"""Frames on the models' device, and doing as much at once as memory holds."""

import numpy as np
import pytest
import torch

from pipeline.decoding.resize import Normalisation
from pipeline.models.memory import halving
from pipeline.models.pixels import DeviceFrames, normalise

HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def frames(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 5, 7, 3), dtype=np.uint8)


def test_two_models_that_read_the_same_share_one_normalisation() -> None:
    shared = DeviceFrames(frames(3), "cpu")
    first = shared.normalised(HALF, keep=True)
    assert shared.normalised(HALF) is first
    assert shared.normalised(HALF) is not first  # given away: nothing is held for longer than it is needed
    torch.testing.assert_close(first, normalise(torch.from_numpy(frames(3)), HALF))
    torch.testing.assert_close(shared.some([2, 0], HALF), first[[2, 0]])
    other = Normalisation((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    assert (shared.normalised(other) - first).abs().max() > 0.3


@pytest.mark.parametrize(("n", "fits"), [(1, 1), (7, 3), (32, 32), (32, 5), (33, 2), (3, 2)])
def test_halves_hold_every_frame_once_and_begin_at_even_ones(n: int, fits: int) -> None:
    asked: list[tuple[int, int]] = []

    def encode(first: int, last: int) -> list[int]:
        asked.append((first, last))
        if last - first > fits:
            raise torch.OutOfMemoryError("too many")
        return list(range(first, last))

    assert halving(encode, lambda parts: [i for part in parts for i in part], 0, n) == list(range(n))
    assert all(first % 2 == 0 for first, _ in asked)
    assert asked[0] == (0, n)


def test_what_does_not_fit_at_all_is_raised() -> None:
    def encode(first: int, last: int) -> list[int]:
        raise torch.OutOfMemoryError("nothing fits")

    with pytest.raises(torch.OutOfMemoryError, match="nothing fits"):
        halving(encode, lambda parts: parts[0], 0, 32)
