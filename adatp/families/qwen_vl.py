"""What Qwen2.5-VL and Qwen3-VL share: two frames a step, pictures of any shape, positions of three axes (M-RoPE).

Legend: n frames, t steps of two frames (a last odd frame is shown twice), H x W pixels, P patches of a step, M x M of
them merged into a token, c tokens of a step, d hidden size of the LLM, D width of the tower.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from adatp.visual import Visual

STEPS_PER_PASS = 16  # bounds the tower's memory; steps do not see each other in it
VIDEO_TEXT = "<|vision_start|><|video_pad|><|vision_end|>"  # what the chat templates write for a video


@dataclass(frozen=True, eq=False)
class QwenVL:
    """One loaded checkpoint: the half of `ModelFamily` that both families do alike."""

    hf: Any

    system: ClassVar[str | None] = None
    video_text: ClassVar[str | None] = VIDEO_TEXT
    chat_template: ClassVar[str | None] = None
    can_rank: ClassVar[bool] = False

    @property
    def decoder(self) -> Any:
        return self.hf.model.language_model

    @property
    def video_token_id(self) -> int:
        return int(self.hf.config.video_token_id)

    @property
    def frame_size(self) -> tuple[int, int] | None:
        return None

    @property
    def tokens_per_frame(self) -> int | None:
        return None

    @property
    def vector(self) -> Tensor | None:
        return None

    @property
    def vision(self) -> Any:
        """The tower's configuration."""
        return self.hf.config.vision_config

    def encode(self, pixels: Tensor, times_s: Sequence[float] | None, ranking: bool) -> Visual:
        rows, columns = self._grid_of(pixels)
        per_step = int(self.vision.temporal_patch_size)
        times = _times_of_steps(len(pixels), per_step, times_s)
        patches = patchify(pixels, int(self.vision.patch_size), int(self.vision.spatial_merge_size), per_step)
        tokens, deepstack = [], []
        for chunk in torch.split(patches, STEPS_PER_PASS):
            grid = torch.tensor([[len(chunk), *self._patch_grid(rows, columns)]], device=pixels.device)
            out = self.hf.model.get_video_features(chunk.flatten(0, 1), grid, return_dict=True)
            tokens.append(torch.cat(out.pooler_output).view(len(chunk), rows * columns, -1))
            if features := getattr(out, "deepstack_features", None):  # L x one video x (t * c, d)
                layers = [torch.cat(feature).view(len(chunk), rows * columns, -1) for feature in features]
                deepstack.append(torch.stack(layers, 2))  # (t, c, L, d)
        return Visual(
            torch.cat(tokens),
            (rows, columns),
            deepstack=torch.cat(deepstack) if deepstack else None,
            members=tuple(len(of_step) for of_step in times),
            times_s=times,
        )

    def _patch_grid(self, rows: int, columns: int) -> tuple[int, int]:
        merge = int(self.vision.spatial_merge_size)
        return rows * merge, columns * merge

    def _grid_of(self, pixels: Tensor) -> tuple[int, int]:
        """Rows and columns of tokens; ValueError for sizes that do not divide."""
        side = int(self.vision.patch_size) * int(self.vision.spatial_merge_size)
        height, width = pixels.shape[2:]
        if height % side or width % side:
            raise ValueError(f"expected height and width divisible by {side}, got {height} x {width} pixels")
        return height // side, width // side

    def _merger_flops(self, n_patches: int) -> float:
        """One merger over the patches of a step: M * M of them concatenated, two linear layers."""
        wide = int(self.vision.hidden_size) * int(self.vision.spatial_merge_size) ** 2
        n_tokens = n_patches // int(self.vision.spatial_merge_size) ** 2
        return 2.0 * n_tokens * (wide * wide + wide * int(self.vision.out_hidden_size))

    def _tower_flops(self, n_patches: int, mlp_matrices: int, attended_pairs: Sequence[int]) -> float:
        """Patch embedding and layers over one step; `attended_pairs` of each layer, `mlp_matrices` in each MLP."""
        width, inner = int(self.vision.hidden_size), int(self.vision.intermediate_size)
        patch = int(self.vision.patch_size)
        embed = 2.0 * n_patches * 3 * int(self.vision.temporal_patch_size) * patch**2 * width
        linear = 2.0 * n_patches * (4 * width * width + mlp_matrices * width * inner)
        return embed + sum(linear + 4.0 * pairs * width for pairs in attended_pairs)


def patchify(pixels: Tensor, patch: int, merge: int, per_step: int) -> Tensor:
    """Frames (n, 3, H, W) -> patches as the tower reads them, (t, P, 3 * per_step * patch * patch).

    The M x M patches of a token stand together, tokens in raster order; a last odd frame is repeated.
    """
    n, channels, height, width = pixels.shape
    if odd := -n % per_step:
        pixels = torch.cat([pixels, pixels[-1:].expand(odd, -1, -1, -1)])
    rows, columns = height // (patch * merge), width // (patch * merge)
    split = pixels.reshape(-1, per_step, channels, rows, merge, patch, columns, merge, patch)
    return split.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(len(split), rows * columns * merge**2, -1)


def _times_of_steps(n_frames: int, per_step: int, times_s: Sequence[float] | None) -> tuple[tuple[float, ...], ...]:
    if times_s is None or any(b < a for a, b in pairwise(times_s)):
        raise ValueError(f"expected times_s of {n_frames} frames that do not fall, got {times_s}")
    return tuple(tuple(map(float, times_s[i : i + per_step])) for i in range(0, n_frames, per_step))


def mrope_positions(n_rows: int, blocks: Sequence[tuple[Tensor, Sequence[int]]], grid: tuple[int, int]) -> Tensor:
    """Positions (3, L) of a prompt with pictures in it: axes time, row, column.

    Text counts on all axes at once. In a block every token has the block's first position plus its step's time, its
    row and its column; after it text goes on from the first position plus the longer side of the grid.

    Args:
        n_rows: L. grid: rows and columns of tokens.
        blocks: for each run of steps without text between, the rows of its tokens, (t, c), and the time of each step.
    """
    rows, columns = grid
    place = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")).flatten(1)  # (2, c)
    positions = torch.zeros(3, n_rows, dtype=torch.long)
    row, position = 0, 0  # of the text that comes next
    for at, times in blocks:
        first = int(at[0, 0])
        positions[:, row:first] = position + torch.arange(first - row)
        position += first - row
        time = torch.tensor(times)[:, None].expand(at.shape)  # (t, c)
        row_and_column = place[:, None].expand(-1, *at.shape)  # (2, t, c)
        positions[:, at.flatten()] = position + torch.cat([time[None], row_and_column]).flatten(1)
        row, position = int(at[-1, -1]) + 1, position + max(rows, columns)
    positions[:, row:] = position + torch.arange(n_rows - row)
    return positions


def need_times(times_s: Sequence[Sequence[float]] | None) -> Sequence[Sequence[float]]:
    """The times of all steps; ValueError where some steps were never encoded."""
    if times_s is None:
        raise ValueError("expected a clip with all its frames encoded: the prompt tells the time of every step")
    return times_s
