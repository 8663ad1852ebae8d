"""Likelihood of given answers, scored together on a prefilled clip: the video is never run again.

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
def choice_logprobs(model: VideoLLM, clip: Prefilled, answers: list[list[int]]) -> tuple[ChoiceLogprob, ...]:
    """Teacher-forced log-likelihood of each answer (token ids, at least one) after the clip's prompt, in one pass."""
    after = iter(_continue(model, clip, [answer[:-1] for answer in answers]))
    scores = []
    for answer in answers:
        logits = torch.cat([clip.logits[None], next(after)])  # (T + 1, vocabulary)
        target = torch.tensor(answer, device=logits.device)
        total = float(logits.float().log_softmax(-1).gather(1, target[:, None]).sum())
        scores.append(ChoiceLogprob(total, total / len(answer), len(answer)))
    return tuple(scores)


def _continue(model: VideoLLM, clip: Prefilled, answers: list[list[int]]) -> list[Tensor]:
    """Logits after each token of each answer, (T, vocabulary) each. All answers lie in one row of tokens, which see
    the clip and their own answer; the clip's cache is read once for all of them, and never written.
    """
    decoder, device, lengths = model.decoder, clip.logits.device, [len(answer) for answer in answers]
    if not sum(lengths):
        return [clip.logits.new_empty(0, len(clip.logits)) for _ in answers]
    tokens = torch.tensor([token for answer in answers for token in answer], device=device)
    place = torch.cat([torch.arange(n, device=device) for n in lengths])  # of a token in its answer
    whose = torch.repeat_interleave(torch.arange(len(answers), device=device), torch.tensor(lengths, device=device))
    own = (whose[:, None] == whose) & (place[:, None] >= place)  # (sum T, sum T)
    hidden = decoder.embed_tokens(tokens)  # (sum T, d)
    for index, layer in enumerate(decoder.layers):
        positions = clip.next_positions[index] + place
        query, key, value = project(layer, hidden, rope(decoder, hidden, positions[None]))
        keys, values = torch.cat([clip.keys[index], key]), torch.cat([clip.values[index], value])  # (L + sum T, K, D)
        mask = torch.cat([own.new_ones(len(tokens), len(clip.keys[index])), own], 1)
        hidden = add_mlp(layer, add_attention(layer, hidden, _grouped(query, keys, values, mask)))
    return list(model.hf.lm_head(decoder.norm(hidden)).split(lengths))


def _grouped(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Attention of T rows, (T, H, D), to all (L + T, K, D) under `mask` (T, L + T): (T, H, D).

    The queries that share a key head are its rows, so that no kernel has to copy keys or hold a map of all heads.
    """
    n_rows, n_heads, head_dim = query.shape
    n_key_heads = keys.shape[1]
    group = n_heads // n_key_heads
    rows = query.view(n_rows, n_key_heads, group, head_dim).permute(1, 2, 0, 3).flatten(1, 2)  # (K, G * T, D)
    k, v = (x.transpose(0, 1)[None] for x in (keys, values))
    attended = scaled_dot_product_attention(rows[None], k, v, attn_mask=mask.repeat(group, 1))[0]
    return attended.view(n_key_heads, group, n_rows, head_dim).permute(2, 0, 1, 3).flatten(1, 2)
