"""Attention scores of the visual tokens, recomputed from queries and keys of a layer (METHOD 1.2 and 1.6).

The layer itself runs on a fused kernel; only the few rows of the text are computed again, in fp32 because half
precision overflows in q k^T on these models. No full attention map ever exists.

Legend: T query rows, L tokens of the sequence, H query heads, K key heads (H = K * G), D head size, V visual tokens.
"""

import torch
from torch import Tensor


def attention_received(query: Tensor, key: Tensor, visual: Tensor, scaling: float) -> Tensor:
    """Attention that visual tokens receive from the sequence's last T tokens: mean over heads and rows. Paper Sec. 3.1.

    Each row's softmax runs over its whole causal prefix; nothing is renormalised over the visual columns.

    Args:
        query: of the last T tokens, after RoPE, (T, H, D).
        key: of all tokens, after RoPE, (L, K, D).
        visual: the visual columns, (V,); they must precede the query rows.
        scaling: factor on q k^T.

    Returns:
        (V,) float32, higher means more attended.
    """
    n_rows, n_heads, head_dim = query.shape
    n_tokens, n_key_heads, _ = key.shape
    group = n_heads // n_key_heads
    rows = query.float().mul(scaling).view(n_rows, n_key_heads, group, head_dim).permute(1, 2, 0, 3)  # (K, G, T, D)
    future = torch.ones(n_rows, n_rows, dtype=torch.bool, device=query.device).triu(1)  # (T, T)
    total = torch.zeros(n_tokens, device=query.device)  # (L,)
    for head in range(n_key_heads):  # one key head at a time bounds the memory to G * T * L floats
        logits = rows[head].flatten(0, 1) @ key[:, head].float().T  # (G * T, L)
        logits.view(group, n_rows, n_tokens)[..., n_tokens - n_rows :].masked_fill_(future, -torch.inf)
        total += logits.softmax(-1).sum(0)
    return total[visual] / (n_heads * n_rows)
