"""Likelihood of given answers, scored on a prefilled clip: the video is never run again.

Legend: L tokens of the prompt in a layer, T tokens of the answer but its last, K key heads, D head size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from adatp.decoder import add_attention, add_mlp, project, rope
from adatp.model import VideoLLM
from adatp.prefill import Prefilled


@dataclass(frozen=True)
class ChoiceLogprob:
    """log P(answer | prompt): `sum` over its tokens, and `mean`, which does not favour short answers."""

    sum: float
    mean: float
    n_tokens: int


@torch.inference_mode()
def choice_logprob(model: VideoLLM, clip: Prefilled, answer: list[int]) -> ChoiceLogprob:
    """Teacher-forced log-likelihood of `answer` (token ids, at least one) after the clip's prompt."""
    logits = clip.logits[None]
    if len(answer) > 1:
        logits = torch.cat([logits, _continue(model, clip, answer[:-1])])
    target = torch.tensor(answer, device=logits.device)
    total = float(logits.float().log_softmax(-1).gather(1, target[:, None]).sum())
    return ChoiceLogprob(total, total / len(answer), len(answer))


def _continue(model: VideoLLM, clip: Prefilled, tokens: list[int]) -> Tensor:
    """Logits after each of `tokens`, (T, vocabulary); the clip's cache is read, never written."""
    decoder, device = model.decoder, clip.logits.device
    n = len(tokens)
    hidden = decoder.embed_tokens(torch.tensor(tokens, device=device))  # (T, d)
    own = torch.ones(n, n, dtype=torch.bool, device=device).tril()
    for index, layer in enumerate(decoder.layers):
        positions = clip.next_positions[index] + torch.arange(n, device=device)
        query, key, value = project(layer, hidden, rope(decoder, hidden, positions[None]))
        keys, values = torch.cat([clip.keys[index], key]), torch.cat([clip.values[index], value])  # (L + T, K, D)
        mask = torch.cat([own.new_ones(n, len(clip.keys[index])), own], 1)  # (T, L + T)
        q, k, v = (x.transpose(0, 1)[None] for x in (query, keys, values))
        attended = scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        hidden = add_mlp(layer, add_attention(layer, hidden, attended[0].transpose(0, 1)))
    logits: Tensor = model.hf.lm_head(decoder.norm(hidden))
    return logits
