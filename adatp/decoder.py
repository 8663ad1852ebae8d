"""One decoder layer over packed ragged sequences, run on the modules of an unmodified transformers decoder.

Its layers are those of Qwen2, Qwen2.5-VL, Qwen3, Qwen3-VL and Llama: norms before attention and MLP, rotary embedding
of the whole head, grouped queries, queries and keys normed per head or not.

Legend: A axes of a position (1, or 3 with M-RoPE), R packed rows (the tokens of all clips, one after the other),
d hidden size, H query heads, K key heads, D head size.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from adatp.weights import CheckpointError

Rope = tuple[Tensor, Tensor]  # cos and sin, each (R, D)


def check_decoder(config: Any, *expected: str) -> None:
    """CheckpointError for a text configuration that asks for what the functions below do not do.

    expected: the `model_type` it may have.
    """
    if config.model_type not in expected:
        raise CheckpointError(f"expected a {' or '.join(expected)} decoder, got {config.model_type}")
    sliding = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if getattr(config, "use_sliding_window", False) or sliding:
        raise CheckpointError("expected full attention in every decoder layer, got use_sliding_window=true")
    if (kind := config.rope_parameters["rope_type"]) in ("dynamic", "longrope"):
        raise CheckpointError(f"expected a rotary embedding of fixed frequencies, got rope_type {kind!r}")


def rope(decoder: Any, like: Tensor, positions: Tensor) -> Rope:
    """Rotary embedding of position ids: (A, R) -> cos and sin (R, D) in the dtype of `like`."""
    cos, sin = decoder.rotary_emb(like, positions if len(positions) == 1 else positions[:, None])
    return cos[0], sin[0]


def project(layer: Any, hidden: Tensor, rotation: Rope) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (R, H, D), keys and values (R, K, D) of a layer for its input (R, d); rotated."""
    attention = layer.self_attn
    x = layer.input_layernorm(hidden)
    query, key, value = (
        linear(x).unflatten(-1, (-1, attention.head_dim))
        for linear in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    if hasattr(attention, "q_norm"):  # Qwen3: over each head
        query, key = attention.q_norm(query), attention.k_norm(key)
    query, key = apply_rotary_pos_emb(query, key, *rotation, unsqueeze_dim=1)
    return query, key, value


def add_attention(layer: Any, hidden: Tensor, attended: Tensor) -> Tensor:
    """Output projection and residual: (R, d) and (R, H, D) -> (R, d)."""
    return hidden + layer.self_attn.o_proj(attended.flatten(1))  # type: ignore[no-any-return]  # untyped module


def add_mlp(layer: Any, hidden: Tensor) -> Tensor:
    """The layer's second half, written into `hidden`, (R, d)."""
    return hidden.add_(layer.mlp(layer.post_attention_layernorm(hidden)))


@dataclass(frozen=True)
class Packed:
    """How many rows each of the packed sequences has."""

    lengths: list[int]
    edges: Tensor  # (sequences + 1,) int32, on the device once and for all layers that see these lengths

    @classmethod
    def of(cls, lengths: list[int], device: torch.device) -> "Packed":
        edges = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        return cls(lengths, edges.to(device, non_blocking=True))


def attend(query: Tensor, key: Tensor, value: Tensor, packed: Packed) -> Tensor:
    """Causal attention inside each of the packed sequences: (R, H, D), no attention map, no padding.

    FlashAttention over variable lengths where CUDA has it, SDPA sequence by sequence elsewhere.
    """
    is_half = query.dtype in (torch.float16, torch.bfloat16)
    if query.is_cuda and is_half and torch.cuda.get_device_capability() >= (8, 0):
        edges, longest = packed.edges, max(packed.lengths)
        out = varlen_attn(query, key, value, edges, edges, longest, longest, window_size=(-1, 0), enable_gqa=True)
        assert isinstance(out, Tensor)  # a pair only where the log-sum-exp is asked for
        return out
    parts = zip(*(torch.split(x, packed.lengths) for x in (query, key, value)), strict=True)
    attended = [_causal(q, k, v) for q, k, v in parts]
    return attended[0] if len(attended) == 1 else torch.cat(attended)


def _causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    q = query.transpose(0, 1)[None]  # (1, H, L, D)
    k, v = (x.transpose(0, 1).contiguous()[None] for x in (key, value))  # each head in one piece: 5% faster on a CPU
    if q.is_cuda:  # its kernels without a map take no grouped heads in fp32
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=not q.is_cuda)[0].transpose(0, 1)
