"""VisionZip (arXiv 2412.04467), the form for SigLIP, which has no CLS token (METHOD 2.2).

Legend: n frames, c tokens of a frame's pooled patch grid, d hidden size, k key size, t tokens kept per frame,
D dominant and C contextual ones (t = D + C), M tokens that are neither.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from adatp.plan import Clip, Plan


def visionzip(
    features: Tensor, received: Tensor, keys: Tensor, n_keep: int, official_sum: bool = True
) -> tuple[Tensor, Tensor]:
    """Keep each frame's most attended tokens and merge the rest into a few.

    D = int(n_keep * 54/64) dominant tokens have the highest `received`. Of the remaining c - D, in raster order, every
    (c - D) // C-th is a contextual target, the first C of them; each of the others joins the target whose key is the
    most similar (cosine; ties to the earlier target). Equal `received`: the lower index is dominant.

    Args:
        features: projected and pooled tokens, (n, c, d).
        received: attention each receives in the last kept tower layer, mean over heads and queries, (n, c).
        keys: that layer's keys, mean over heads, (n, c, k).
        n_keep: t, 1..c.
        official_sum: target plus the mean of what joined it, as published (its norm can double); False: the true mean
            over target and joined.

    Returns:
        Tokens (n, t, d), dominant in raster order and then contextual; and the index in 0..c-1 of each, (n, t).
    """
    c = features.shape[1]
    n_dominant = int(n_keep * 54 / 64)
    n_context = n_keep - n_dominant
    order = received.sort(dim=-1, descending=True, stable=True).indices
    dominant = order[:, :n_dominant].sort(-1).values  # (n, D)
    rest = order[:, n_dominant:].sort(-1).values  # (n, c - D)
    step = max(1, (c - n_dominant) // max(1, n_context))
    is_target = torch.zeros(c - n_dominant, dtype=torch.bool, device=features.device)
    is_target[torch.arange(n_context, device=features.device) * step] = True
    targets, others = rest[:, is_target], rest[:, ~is_target]  # (n, C), (n, M)
    context = _merge(features, keys, targets, others, official_sum)
    index = torch.cat([dominant, targets], 1)
    return torch.cat([_take(features, dominant), context], 1), index


def _merge(features: Tensor, keys: Tensor, targets: Tensor, others: Tensor, official_sum: bool) -> Tensor:
    """Contextual tokens, (n, C, d): targets with the mean of the tokens that joined them."""
    target_features = _take(features, targets).float()  # (n, C, d)
    if targets.shape[1] == 0 or others.shape[1] == 0:
        return target_features.to(features.dtype)
    unit = torch.nn.functional.normalize(keys.float(), dim=-1)
    joined = (_take(unit, others) @ _take(unit, targets).transpose(1, 2)).argmax(-1)  # (n, M)
    member = torch.nn.functional.one_hot(joined, targets.shape[1]).float().transpose(1, 2)  # (n, C, M)
    total = member @ _take(features, others).float()  # (n, C, d)
    count = member.sum(-1, keepdim=True)  # (n, C, 1)
    merged = target_features + total / count.clamp(min=1) if official_sum else (target_features + total) / (count + 1)
    return merged.to(features.dtype)


def _take(x: Tensor, index: Tensor) -> Tensor:
    """x (n, c, w) at index (n, t) -> (n, t, w)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


@dataclass(frozen=True)
class VisionZip:
    """`tokens_per_frame` tokens of every frame go into the LLM, renumbered.

    Where the layout ends rows in newlines, `tokens_per_frame` includes them and their share stays what it was (13 of
    182): the rows with the most dominant tokens keep theirs, everything stands in raster order.
    """

    tokens_per_frame: int | None = None
    """None: what costs as much as AdaTP's schedule at the request's p."""
    official_sum: bool = True

    def plan(self, clip: Clip) -> Plan:
        visual, c = clip.visual, clip.visual.tokens_per_frame
        wanted = self.tokens_per_frame
        if wanted is None:
            wanted = max(1, round(c * clip.mean_share))
        if not 1 <= wanted <= c:
            raise ValueError(f"expected tokens_per_frame in 1..{c}, got {wanted}")
        if visual.ranking is None:
            raise ValueError("visionzip needs what it ranks by: encode the clip with visionzip=True")
        patches = visual.patch_columns
        n_keep = max(1, round(wanted * len(patches) / c))
        received, keys = visual.ranking.received, visual.ranking.keys
        tokens, index = visionzip(visual.tokens[:, patches], received, keys, n_keep, self.official_sum)
        columns = patches[index]  # (n, t) among all c columns
        if len(patches) < c and wanted > n_keep:
            tokens, columns = _add_newlines(visual.tokens, visual.grid[1], tokens, columns, wanted - n_keep)
        first = clip.origin.view(-1, c)[:, :1]  # (n, 1)
        return Plan(tokens.flatten(0, 1), (first + columns).flatten(), keeps_positions=False)


def _add_newlines(
    frames: Tensor, width: int, tokens: Tensor, columns: Tensor, n_newlines: int
) -> tuple[Tensor, Tensor]:
    """Put `n_newlines` row ends back into each frame and sort it by raster place.

    Args:
        frames: all tokens, (n, rows * (width + 1), d). width: patches of a row.
        tokens: kept, (n, t, d). columns: their places, (n, t), dominant first.
    """
    n, c, _ = frames.shape
    n_dominant = int(columns.shape[1] * 54 / 64)
    held = torch.zeros(n, c // (width + 1), device=frames.device)
    dominant_rows = columns[:, :n_dominant] // (width + 1)
    held.scatter_add_(1, dominant_rows, torch.ones_like(dominant_rows, dtype=held.dtype))
    rows = held.sort(dim=1, descending=True, stable=True).indices[:, :n_newlines]
    newlines = rows * (width + 1) + width  # (n, n_newlines)
    columns = torch.cat([columns, newlines], 1)
    tokens = torch.cat([tokens, _take(frames, newlines)], 1)
    order = columns.argsort(1)
    return _take(tokens, order), columns.gather(1, order)
