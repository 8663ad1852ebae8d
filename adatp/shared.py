"""Several prompts on one clip: what stands before their first difference is computed once.

Attention is causal: until a method drops tokens, the rows up to the last visual token are the same for all prompts on
a clip. Those layers run over the shared rows once and over each prompt's own tail; then every prompt goes its own way.

Legend: P shared rows, T rows of one tail, d hidden size, N decoder layers.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from adatp.decoder import Packed, add_attention, add_mlp, attend, project, rope
from adatp.model import VideoLLM
from adatp.prefill import Prefilled, Sequence, cut_at, keep, run_layers, score


@torch.inference_mode()
def prefill_pack(model: VideoLLM, sequences: list[Sequence]) -> list[Prefilled]:
    """Run prompts through the decoder; neighbours on one clip share what they can."""
    done = [Prefilled(s.embeddings.new_empty(0), len(s.others)) for s in sequences]
    parts = groups(sequences)
    alone = [part[0] for part in parts if len(part) == 1]
    if alone:
        run_layers(model, [sequences[i] for i in alone], [done[i] for i in alone], 0)
    for part in (part for part in parts if len(part) > 1):
        group, results = [sequences[i] for i in part], [done[i] for i in part]
        run_layers(model, group, results, run_shared(model, group, results))
    return done


def groups(sequences: list[Sequence]) -> list[list[int]]:
    """Neighbours that share all their rows up to the last visual token, and a first layer at least; others alone."""
    found: list[list[int]] = []
    for index, sequence in enumerate(sequences):
        if found and _share(sequences[found[-1][0]], sequence):
            found[-1].append(index)
        else:
            found.append([index])
    return found


def layers_shared(group: list[Sequence], n_layers: int) -> int:
    """How many layers run before one of them drops a token."""
    return min((cut.layer for sequence in group for cut in sequence.plan.cuts), default=n_layers)


def _share(a: Sequence, b: Sequence) -> bool:
    if a.deepstack is not None or b.deepstack is not None or layers_shared([a, b], 1) < 1:
        return False
    if len(a.visual) == 0 or len(a.visual) != len(b.visual) or not torch.equal(a.visual, b.visual):
        return False
    n = _n_shared(a)
    same = torch.equal(a.positions[:, :n], b.positions[:, :n]) and torch.equal(a.origin, b.origin)
    return same and torch.equal(a.embeddings[:n], b.embeddings[:n])


def _n_shared(sequence: Sequence) -> int:
    """P: rows up to the last visual token."""
    return int(sequence.visual[-1]) + 1


def run_shared(model: VideoLLM, group: list[Sequence], done: list[Prefilled]) -> int:
    """The layers that all prompts share; their rows after them become their embeddings. Returns how many layers ran."""
    decoder, n, n_layers = model.decoder, _n_shared(group[0]), layers_shared(group, model.n_layers)
    tails = [len(sequence) - n for sequence in group]
    hidden = torch.cat([group[0].embeddings[:n], *(s.embeddings[n:] for s in group)])  # (P + sum T, d)
    positions = torch.cat([group[0].positions[:, :n], *(s.positions[:, n:] for s in group)], 1)
    rotation, packed = rope(decoder, hidden, positions), Packed.of([n], hidden.device)
    for index, layer in enumerate(decoder.layers[:n_layers]):
        query, key, value = project(layer, hidden, rotation)
        first = attend(query[:n], key[:n], value[:n], packed)
        parts = [first]
        each = zip(*(x[n:].split(tails) for x in (query, key, value)), strict=True)
        for sequence, result, (q, k, v) in zip(group, done, each, strict=True):
            keys, values = torch.cat([key[:n], k]), torch.cat([value[:n], v])
            parts.append(_attend_tail(q, keys, values))
            if (cut := cut_at(sequence.plan, index + 1)) and cut.scored_by == "previous":
                sequence.scores = score(sequence, cut, q, keys, layer)
            keep(result, sequence, keys, values)
        hidden = add_mlp(layer, add_attention(layer, hidden, torch.cat(parts)))
    for sequence, tail in zip(group, hidden[n:].split(tails), strict=True):
        sequence.embeddings = torch.cat([hidden[:n], tail])
    return n_layers


def _attend_tail(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """A tail sees all shared rows and, causally, itself: (T, H, D) over (P + T, K, D)."""
    mask = torch.ones(len(query), len(keys), dtype=torch.bool, device=query.device).tril(len(keys) - len(query))
    q, k, v = (x.transpose(0, 1)[None] for x in (query, keys, values))
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)[0].transpose(0, 1)
