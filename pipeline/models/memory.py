"""Doing as much at once as a GPU's memory holds."""

from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


def halving(encode: Callable[[int, int], T], join: Callable[[list[T]], T], first: int, last: int) -> T:
    """`encode(first, last)`, in halves, and halves of those, where the GPU's memory is too small for all of it.

    Halves begin at even frames, because some towers take frames in pairs. Raises torch.OutOfMemoryError when even two
    frames do not fit.
    """
    try:
        return encode(first, last)
    except torch.OutOfMemoryError:
        if last - first <= 2:
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = first + (last - first + 3) // 4 * 2
    return join([halving(encode, join, first, middle), halving(encode, join, middle, last)])
