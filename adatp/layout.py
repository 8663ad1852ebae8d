"""The unpruned prompt of a clip, row by row: where the visual tokens stand, and every row's position.

Legend: L rows, V0 visual tokens, A axes of a position: 1, or 3 (time, row, column) where the model has M-RoPE.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor


class Slot(Enum):
    """A place in the prompt that no word fills."""

    STEP = "the visual tokens of one step"
    VECTOR = "one learned vector of the model"


@dataclass(frozen=True)
class Layout:
    """Where everything of an unpruned prompt stands.

    Attributes:
        ids: token ids, (L,); the video's placeholder stands at visual tokens and vectors. These are the ids that
            transformers' own processor would make, so the model can be run on them directly.
        visual: rows of the visual tokens, step by step, (V0,) int64, ascending.
        vectors: rows that hold the model's learned vector.
        positions: (A, L) int64. With one axis, a method may renumber what it keeps; with three, every token keeps its
            coordinates, whatever the method asks: fresh numbers would take its place in the picture from it.
        n_after: rows at the end that are the text after the video; their attention ranks the visual tokens.
    """

    ids: tuple[int, ...]
    visual: Tensor
    vectors: tuple[int, ...]
    positions: Tensor
    n_after: int

    @property
    def next_position(self) -> int:
        """Position of the first generated token, on every axis."""
        return int(self.positions.max()) + 1

    @property
    def renumbers(self) -> bool:
        return len(self.positions) == 1


def rows_of(tokens: Sequence[int | Slot], c: int, placeholder: int) -> tuple[list[int], list[int], list[int]]:
    """Ids of all rows, rows of the visual tokens, and rows of vectors: each STEP of `tokens` becomes c rows."""
    ids: list[int] = []
    visual: list[int] = []
    vectors: list[int] = []
    for token in tokens:
        if token is Slot.STEP:
            visual += range(len(ids), len(ids) + c)
            ids += [placeholder] * c
        elif isinstance(token, Slot):
            vectors.append(len(ids))
            ids.append(placeholder)
        else:
            ids.append(token)
    return ids, visual, vectors


def one_axis(n_rows: int) -> Tensor:
    """Positions that count rows, (1, L)."""
    return torch.arange(n_rows)[None]
