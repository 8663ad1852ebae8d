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
        q, k, v = (x.transpose(0, 1)[None] for x in (query, keys, values))
        attended = scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        hidden = add_mlp(layer, add_attention(layer, hidden, attended[0].transpose(0, 1)))
    return list(model.hf.lm_head(decoder.norm(hidden)).split(lengths))
