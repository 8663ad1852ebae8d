"""Frames to visual tokens: SigLIP tower, projector, pooling, newlines (METHOD 3.1).

Legend: n frames, P = g * g patches of a frame, D tower width, d hidden size of the LLM, c visual tokens per frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

FRAMES_PER_PASS = 32  # bounds the tower's memory; a clip has at most 32 frames


@dataclass(frozen=True)
class FrameLayout:
    """How a frame's patch grid becomes visual tokens.

    pool: `bilinear` halves the grid rounding up (27 -> 14), `average` rounding down (27 -> 13).
    newline: `one_token` puts one learned vector after all frames; `grid` one after every row of every frame.
    """

    pool: Literal["bilinear", "average"]
    newline: Literal["one_token", "grid"]

    def __post_init__(self) -> None:
        if self.pool not in ("bilinear", "average") or self.newline not in ("one_token", "grid"):
            raise ValueError(f"expected pool bilinear|average and newline one_token|grid, got {self}")

    def side(self, grid: int) -> int:
        """Tokens along a side of the pooled grid."""
        return (grid + 1) // 2 if self.pool == "bilinear" else grid // 2

    def tokens_per_frame(self, grid: int) -> int:
        side = self.side(grid)
        return side * (side + 1) if self.newline == "grid" else side * side


ONEVISION = FrameLayout("bilinear", "one_token")
LLAVA_VIDEO = FrameLayout("average", "grid")


@dataclass(frozen=True)
class Visual:
    """The encoded frames of a clip; index it by frame to share one encoding between questions.

    `received` and `keys` are what VisionZip ranks by: attention a patch receives in the tower's last layer, and that
    layer's keys averaged over heads, both pooled to the token grid. They cover patches only; newline columns, where the
    layout has them, close each row of `tokens`.
    """

    tokens: Tensor  # (n, c, d)
    received: Tensor  # (n, side * side) float32
    keys: Tensor  # (n, side * side, head size)

    def __post_init__(self) -> None:
        n, patches = len(self.tokens), self.received.shape[-1]
        side = round(patches**0.5)
        shapes_agree = (
            self.tokens.ndim == 3
            and self.received.shape == (n, patches)
            and self.keys.shape[:2] == (n, patches)
            and side * side == patches
            and self.tokens.shape[1] in (patches, patches + side)
        )
        if n == 0 or not shapes_agree:
            raise ValueError(
                "expected tokens (n, c, d), received (n, s*s), keys (n, s*s, k) with n >= 1 and c = s*s or s*(s+1), "
                f"got {tuple(self.tokens.shape)}, {tuple(self.received.shape)}, {tuple(self.keys.shape)}"
            )

    @property
    def n_frames(self) -> int:
        return len(self.tokens)

    @property
    def tokens_per_frame(self) -> int:
        return self.tokens.shape[1]

    @property
    def patch_columns(self) -> Tensor:
        """Places of the patches among a frame's c tokens, (side * side,): all of them unless rows end in a newline."""
        c, patches = self.tokens_per_frame, self.received.shape[1]
        every = torch.arange(c, device=self.tokens.device)
        if c == patches:
            return every
        side = c - patches
        return every[every % (side + 1) != side]

    def __getitem__(self, frames: int | slice | Sequence[int] | Tensor) -> "Visual":
        if isinstance(frames, int):
            frames = [frames]
        elif not isinstance(frames, slice | Tensor):
            frames = list(frames)
        return Visual(self.tokens[frames], self.received[frames], self.keys[frames])

    @classmethod
    def cat(cls, parts: "Sequence[Visual]") -> "Visual":
        """The frames of several clips as one, in order."""
        columns = zip(*((part.tokens, part.received, part.keys) for part in parts), strict=True)
        return cls(*(torch.cat(column) for column in columns))


def encode_frames(
    tower: nn.Module, projector: nn.Module, image_newline: Tensor, layout: FrameLayout, n_layers: int, pixels: Tensor
) -> Visual:
    """Run `n_layers` of the tower, project, pool and lay out; see `VideoLLM.encode` for the arguments' meaning."""
    parts = []
    for chunk in torch.split(pixels, FRAMES_PER_PASS):
        features, received, keys = _tower_features(tower, n_layers, chunk)
        tokens = pool(projector(features), layout)  # (n, s*s, d)
        if layout.newline == "grid":
            tokens = with_row_newlines(tokens, image_newline)
        pooled = pool(torch.cat([received[..., None], keys], -1), layout)  # (n, s*s, 1 + k)
        parts.append((tokens, pooled[..., 0], pooled[..., 1:].to(tokens.dtype)))
    tokens, received, keys = (torch.cat(column) for column in zip(*parts, strict=True))
    return Visual(tokens, received, keys)


def _tower_features(tower: Any, n_layers: int, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output of layer `n_layers` without post-layernorm, (n, P, D); what its patches received, (n, P); its keys."""
    hidden = tower.embeddings(pixels)  # (n, P, D)
    layers = tower.encoder.layers[:n_layers]
    for layer in layers[:-1]:
        hidden = layer(hidden, None)
    last = layers[-1]
    received, keys = patch_attention(last.self_attn, last.layer_norm1(hidden))
    return last(hidden, None), received, keys


def patch_attention(attention: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """VisionZip's two inputs from one tower layer's normed input (METHOD 2.2, step 2).

    Returns:
        Attention every patch receives, mean over heads and query rows, (n, P), and keys averaged over heads,
        (n, P, head size), both float32. One frame at a time: the map of a frame is heads * P * P floats.
    """
    heads, head_dim = attention.num_heads, attention.head_dim
    query = attention.q_proj(x).unflatten(-1, (heads, head_dim)).float()  # (n, P, H, k)
    key = attention.k_proj(x).unflatten(-1, (heads, head_dim)).float()
    received = [
        (q.transpose(0, 1) @ k.permute(1, 2, 0) * attention.scale).softmax(-1).mean((0, 1))  # (P,)
        for q, k in zip(query, key, strict=True)
    ]
    return torch.stack(received), key.mean(2)


def pool(x: Tensor, layout: FrameLayout) -> Tensor:
    """Pool a square grid of vectors with stride 2: (n, g*g, w) -> (n, s*s, w)."""
    n, patches, width = x.shape
    grid = round(patches**0.5)
    image = x.transpose(1, 2).reshape(n, width, grid, grid)
    if layout.pool == "bilinear":
        side = layout.side(grid)
        image = nn.functional.interpolate(image, size=(side, side), mode="bilinear")
    else:
        image = nn.functional.avg_pool2d(image, 2)
    return image.flatten(2).transpose(1, 2).contiguous()


def with_row_newlines(tokens: Tensor, newline: Tensor) -> Tensor:
    """Close every row of each frame's grid with `newline`: (n, s*s, d) -> (n, s*(s+1), d)."""
    n, patches, d = tokens.shape
    side = round(patches**0.5)
    rows = tokens.view(n, side, side, d)
    column = newline.to(tokens).expand(n, side, 1, d)
    return torch.cat([rows, column], 2).flatten(1, 2)
