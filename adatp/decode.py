"""Greedy decoding of a batch of ragged clips, each layer's cache as long as what that layer saw of each clip.

Prompts are aligned at the right edge of each layer's buffer, so that all clips write step t to the same column and one
mask per layer, made once, holds for every step.

Legend: B clips, N layers, C columns of a layer's buffer, K key heads, G queries per key head, D head size.
"""

import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from adatp.decoder import add_attention, add_mlp, project
from adatp.model import VideoLLM
from adatp.prefill import Prefilled


@dataclass
class Generated:
    """Greedy continuation of one clip; the stop token itself is not among `token_ids`."""

    token_ids: list[int]
    finish_reason: str  # "stop" or "length"
    decode_ms: float  # this clip's share: each step's time divided by the clips it advanced


class RaggedCache:
    """Keys and values of B clips, per layer: (B, K, C_l, D), prompts flush with column `prompt_end[l]`."""

    def __init__(self, clips: list[Prefilled], n_new: int) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.masks: list[Tensor | None] = []  # (B, 1, 1, C_l) bool; None where no clip is padded
        self.prompt_end: list[int] = []
        for layer in range(len(clips[0].keys)):
            lengths = [len(clip.keys[layer]) for clip in clips]
            longest = max(lengths)
            self.keys.append(_right_aligned([clip.keys[layer] for clip in clips], longest, n_new))
            self.values.append(_right_aligned([clip.values[layer] for clip in clips], longest, n_new))
            device = self.keys[-1].device
            first = torch.tensor([longest - n for n in lengths], device=device)[:, None]  # (B, 1)
            mask = torch.arange(longest + n_new, device=device) >= first  # (B, C)
            self.masks.append(None if min(lengths) == longest else mask[:, None, None])
            self.prompt_end.append(longest)
            for clip in clips:  # the buffer holds them now
                clip.keys[layer] = clip.values[layer] = clip.keys[layer].new_empty(0)

    def attend(self, layer: int, step: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Store this step's key and value, (B, K, D), and attend to all so far: (B, H, D) -> (B, H, D)."""
        column = self.prompt_end[layer] + step
        keys, values, mask = self.keys[layer], self.values[layer], self.masks[layer]
        keys[:, :, column], values[:, :, column] = key, value
        grouped = query.view(*key.shape[:2], -1, key.shape[2])  # (B, K, G, D): the G queries of a key head are its rows
        seen = slice(0, column + 1)
        attended = scaled_dot_product_attention(
            grouped, keys[:, :, seen], values[:, :, seen], attn_mask=None if mask is None else mask[..., seen]
        )
        return attended.flatten(1, 2)

    def keep(self, clips: Tensor) -> None:
        """Go on with only these clips of the batch."""
        self.keys = [x[clips] for x in self.keys]
        self.values = [x[clips] for x in self.values]
        self.masks = [None if x is None else x[clips] for x in self.masks]


def _right_aligned(parts: list[Tensor], longest: int, n_new: int) -> Tensor:
    """B x (L_b, K, D) -> (B, K, longest + n_new, D), zero where nothing stands."""
    _, heads, head_dim = parts[0].shape
    buffer = parts[0].new_zeros(len(parts), heads, longest + n_new, head_dim)
    for row, part in zip(buffer, parts, strict=True):
        row[:, longest - len(part) : longest] = part.transpose(0, 1)
    return buffer


@torch.inference_mode()
def greedy(model: VideoLLM, clips: list[Prefilled], max_new_tokens: list[int]) -> list[Generated]:
    """Continue every clip until a stop token or its `max_new_tokens`."""
    done = [Generated([], "length", 0.0) for _ in clips]
    token = torch.stack([clip.logits for clip in clips]).argmax(-1)  # (B,)
    position = torch.tensor([clip.next_positions for clip in clips], device=token.device).T  # (N, B)
    active = list(range(len(clips)))
    cache = RaggedCache(clips, max(max_new_tokens))
    for step in range(max(max_new_tokens)):
        going = _note(model, done, active, token.tolist(), max_new_tokens)
        if not going:
            break
        begun = time.perf_counter()
        if 2 * len(going) <= len(active):  # finished clips ride along until half of the batch is idle
            rows = torch.tensor([active.index(clip) for clip in going], device=token.device)
            cache.keep(rows)
            token, position, active = token[rows], position[:, rows], going
        token = _step(model, cache, step, token, position + step).argmax(-1)
        if token.is_cuda:
            torch.cuda.synchronize()
        for clip in going:
            done[clip].decode_ms += (time.perf_counter() - begun) * 1000 / len(going)
    return done


def _note(
    model: VideoLLM, done: list[Generated], active: list[int], tokens: list[int], max_new_tokens: list[int]
) -> list[int]:
    """Give every unfinished clip its token; return those that go on."""
    going = []
    for clip, token in zip(active, tokens, strict=True):
        result = done[clip]
        if result.finish_reason == "stop" or len(result.token_ids) == max_new_tokens[clip]:
            continue
        if token in model.stop_token_ids:
            result.finish_reason = "stop"
            continue
        result.token_ids.append(token)
        if len(result.token_ids) < max_new_tokens[clip]:
            going.append(clip)
    return going


def _step(model: VideoLLM, cache: RaggedCache, step: int, token: Tensor, position: Tensor) -> Tensor:
    """One token of every clip through the decoder. token: (B,), position: (N, B) -> logits (B, vocabulary)."""
    decoder = model.decoder
    hidden = decoder.embed_tokens(token)  # (B, d)
    cos, sin = decoder.rotary_emb(hidden, position)  # (N, B, D): positions may differ between layers
    for index, layer in enumerate(decoder.layers):
        query, key, value = project(layer, hidden, (cos[index], sin[index]))
        hidden = add_attention(layer, hidden, cache.attend(index, step, query, key, value))
        hidden = add_mlp(layer, hidden)
    logits: Tensor = model.hf.lm_head(decoder.norm(hidden))
    return logits
