"""LLaVA's frames to visual tokens: SigLIP tower, projector, pooling, newlines (METHOD 3.1).

Legend: n frames, P = g * g patches of a frame, D tower width, d hidden size of the LLM, c visual tokens per frame.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from adatp.visual import Ranking, Visual

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


def encode_frames(
    tower: nn.Module,
    projector: nn.Module,
    image_newline: Tensor,
    layout: FrameLayout,
    n_layers: int,
    pixels: Tensor,
    ranking: bool,
) -> Visual:
    """Run `n_layers` of the tower over pixels (n, 3, H, W), project, pool and lay out; `ranking` is for VisionZip."""
    parts, ranked = [], []
    for chunk in torch.split(pixels, FRAMES_PER_PASS):
        features, received, keys = _tower_features(tower, n_layers, chunk, ranking)
        tokens = pool(projector(features), layout)  # (n, s*s, d)
        if layout.newline == "grid":
            tokens = with_row_newlines(tokens, image_newline)
        parts.append(tokens)
        if received is not None and keys is not None:
            pooled = pool(torch.cat([received[..., None], keys], -1), layout)  # (n, s*s, 1 + k)
            ranked.append((pooled[..., 0], pooled[..., 1:].to(tokens.dtype)))
    side = layout.side(round(features.shape[1] ** 0.5))
    return Visual(
        torch.cat(parts),
        (side, side),
        row_newlines=layout.newline == "grid",
        ranking=Ranking(*(torch.cat(column) for column in zip(*ranked, strict=True))) if ranking else None,
    )


def _tower_features(
    tower: Any, n_layers: int, pixels: Tensor, ranking: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Output of layer `n_layers` without post-layernorm, (n, P, D); what its patches received, (n, P); its keys."""
    hidden = tower.embeddings(pixels)  # (n, P, D)
    layers = tower.encoder.layers[:n_layers]
    for layer in layers[:-1]:
        hidden = layer(hidden, None)
    last = layers[-1]
    received, keys = patch_attention(last.self_attn, last.layer_norm1(hidden)) if ranking else (None, None)
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
