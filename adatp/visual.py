"""The encoded frames of a clip, whatever tower made them.

Legend: n steps, c visual tokens of a step, P of them patches, d hidden size of the LLM, k key size, L deepstack layers.
A *step* is what the tower turns into one grid of tokens: a frame, or two consecutive frames (Qwen's temporal patch).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ranking:
    """What VisionZip ranks by; covers patches only.

    received: attention a patch receives in the tower's last kept layer, (n, P) float32. keys: that layer's keys
    averaged over heads, (n, P, k). Both pooled to the token grid.
    """

    received: Tensor
    keys: Tensor


@dataclass(frozen=True)
class Visual:
    """The visual tokens of a clip; index it by frame to share one encoding between questions.

    Attributes:
        tokens: (n, c, d).
        grid: rows and columns of a step's patch tokens, in raster order.
        row_newlines: whether a learned newline closes each row, so that c = rows * (columns + 1).
        ranking: for VisionZip, where it was asked for.
        deepstack: what the tower adds to the first L decoder layers' output at each token, (n, c, L, d).
        members: frames shown in each step. None: one each.
        times_s: seconds of the frames that were encoded into each step, where the model wants to know them.
    """

    tokens: Tensor
    grid: tuple[int, int]
    row_newlines: bool = False
    ranking: Ranking | None = None
    deepstack: Tensor | None = None
    members: tuple[int, ...] | None = None
    times_s: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        rows, columns = self.grid
        c = rows * (columns + self.row_newlines)
        n = len(self.tokens)
        if self.tokens.ndim != 3 or n == 0 or self.tokens.shape[1] != c:
            raise ValueError(
                f"expected tokens (n, {c}, d) with n >= 1 for {rows} rows of {columns} patches"
                f"{' and a newline' if self.row_newlines else ''}, got {tuple(self.tokens.shape)}"
            )
        ranked = (n, rows * columns)
        if self.ranking is not None and not self.ranking.received.shape == self.ranking.keys.shape[:2] == ranked:
            raise ValueError(
                f"expected received {ranked} and keys {ranked} by k, "
                f"got {tuple(self.ranking.received.shape)} and {tuple(self.ranking.keys.shape)}"
            )
        if self.deepstack is not None and (self.deepstack.ndim != 4 or self.deepstack.shape[:2] != (n, c)):
            raise ValueError(f"expected deepstack ({n}, {c}, L, d), got {tuple(self.deepstack.shape)}")
        for name, values in (("members", self.members), ("times_s", self.times_s)):
            if values is not None and len(values) != n:
                raise ValueError(f"expected {name} of {n} steps, got {len(values)}")

    @property
    def n_steps(self) -> int:
        return len(self.tokens)

    @property
    def n_frames(self) -> int:
        """Frames shown; segments are counted in them."""
        return self.n_steps if self.members is None else sum(self.members)

    @property
    def tokens_per_frame(self) -> int:
        """c, newlines included; of a step where that is more than one frame."""
        return self.tokens.shape[1]

    @property
    def patch_columns(self) -> Tensor:
        """Places of the patches among a step's c tokens, (P,): all of them unless rows end in a newline."""
        every = torch.arange(self.tokens_per_frame, device=self.tokens.device)
        if not self.row_newlines:
            return every
        columns = self.grid[1]
        return every[every % (columns + 1) != columns]

    def __getitem__(self, frames: int | slice | Sequence[int] | Tensor) -> "Visual":
        """The steps that hold these frames, each showing only as many of them."""
        every = range(self.n_frames)
        chosen = [every[frames]] if isinstance(frames, int) else every[frames] if isinstance(frames, slice) else frames
        places = [int(frame) for frame in chosen]
        if self.members is None:
            return self.steps(places)
        step_of_frame = [step for step, shown in enumerate(self.members) for _ in range(shown)]
        steps: list[int] = []
        shown: list[int] = []
        for frame in places:
            if steps and steps[-1] == step_of_frame[frame]:
                shown[-1] += 1
            else:
                steps.append(step_of_frame[frame])
                shown.append(1)
        return self.steps(steps, tuple(shown))

    def steps(self, chosen: Sequence[int], members: tuple[int, ...] | None = None) -> "Visual":
        """These steps, showing `members` frames each; None: as many as before."""
        at = list(chosen)
        if members is None and self.members is not None:
            members = tuple(self.members[step] for step in at)
        return Visual(
            tokens=self.tokens[at],
            grid=self.grid,
            row_newlines=self.row_newlines,
            ranking=None if self.ranking is None else Ranking(self.ranking.received[at], self.ranking.keys[at]),
            deepstack=None if self.deepstack is None else self.deepstack[at],
            members=members,
            times_s=None if self.times_s is None else tuple(self.times_s[step] for step in at),
        )

    @classmethod
    def cat(cls, parts: "Sequence[Visual]") -> "Visual":
        """The frames of several clips as one, in order. Their frames must have one size."""
        first = parts[0]
        kinds = {
            (p.grid, p.row_newlines, p.ranking is None, p.deepstack is None, p.members is None, p.times_s is None)
            for p in parts
        }
        if len(kinds) > 1:
            raise ValueError(f"expected clips of one grid and one model, got grids {sorted({p.grid for p in parts})}")
        rankings = [p.ranking for p in parts if p.ranking is not None]
        deepstacks = [p.deepstack for p in parts if p.deepstack is not None]
        return cls(
            tokens=torch.cat([p.tokens for p in parts]),
            grid=first.grid,
            row_newlines=first.row_newlines,
            ranking=Ranking(torch.cat([r.received for r in rankings]), torch.cat([r.keys for r in rankings]))
            if rankings
            else None,
            deepstack=torch.cat(deepstacks) if deepstacks else None,
            members=None if first.members is None else tuple(m for p in parts for m in p.members or ()),
            times_s=None if first.times_s is None else tuple(t for p in parts for t in p.times_s or ()),
        )
