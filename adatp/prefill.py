"""Prefill in which pruned tokens are really dropped: each layer's KV keeps what that layer saw.

Several clips run packed, one after the other in one tensor, each with its own plan; nothing is padded.

Legend: R packed rows, A axes of a position, L tokens of one sequence, T of them not visual, V visual tokens alive,
d hidden size, K key heads, D head size, N layers.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from adatp.decoder import Packed, Rope, add_attention, add_mlp, attend, project, rope
from adatp.layout import Layout
from adatp.model import VideoLLM
from adatp.plan import Clip, Cut, Plan
from adatp.scores import attention_received


@dataclass
class Sequence:
    """One prompt on its way through the decoder: the visual tokens alive, and the other tokens around and between."""

    embeddings: Tensor  # (L, d)
    positions: Tensor  # (A, L) int64
    renumbers: bool  # whether a cut may number its survivors afresh
    plan: Plan
    origin: Tensor  # (V,) of the visual tokens alive
    visual: Tensor  # (V,) their rows, ascending
    others: Tensor  # (T,) all other rows, ascending
    n_after: int  # rows at the end that are the text after the video
    next_position: int  # position id of the first generated token; known without asking the device
    deepstack: Tensor | None = None  # (V, layers, d) added to the first layers' output at the visual tokens
    scores: Tensor | None = None  # (V,) of the latest scored layer, for the next cut

    def __len__(self) -> int:
        return self.positions.shape[1]


@dataclass
class Prefilled:
    """What a prefill leaves of one clip."""

    logits: Tensor  # (vocabulary,) of the prompt's last token
    n_other: int  # T, positions that are not visual: header, newline, text
    keys: list[Tensor] = field(default_factory=list)  # N x (L_l, K, D), after RoPE
    values: list[Tensor] = field(default_factory=list)  # N x (L_l, K, D)
    next_positions: list[int] = field(default_factory=list)  # N: position id of the first generated token, per layer
    origins: list[Tensor] = field(default_factory=list)  # N x (V_l,) visual tokens that entered each layer


def embed(model: VideoLLM, layout: Layout, clip: Clip, plan: Plan) -> Sequence:
    """The embeddings of a prompt around the plan's tokens, each step's tokens in that step's place."""
    c, device = clip.visual.tokens_per_frame, model.device
    is_other = torch.ones(len(layout.ids), dtype=torch.bool)
    is_other[layout.visual] = False
    others = is_other.nonzero().flatten()  # (T,) on the CPU: nothing waits for the device
    ids = torch.tensor(layout.ids)[others].clamp_min(0)  # what stands for a learned vector may be no token at all
    words = model.decoder.embed_tokens(ids.to(device))  # (T, d)
    if layout.vectors:
        at = torch.searchsorted(others, torch.tensor(layout.vectors))
        words = words.index_copy(0, at.to(device), model.family.vector.expand(len(at), -1).to(words))  # type: ignore[union-attr]  # a family that lays out vectors has one
    others, visual, origin = others.to(device), layout.visual.to(device), plan.origin.to(device)
    order = torch.cat([others, visual[origin // c * c]]).argsort(
        stable=True
    )  # a step's tokens stay in the plan's order
    if plan.keeps_positions or not layout.renumbers:
        positions = layout.positions.to(device)[:, torch.cat([others, visual[origin]])[order]]
        end = layout.next_position
    else:
        positions, end = torch.arange(len(order), device=device)[None], len(order)
    row = order.argsort()
    return Sequence(
        embeddings=torch.cat([words, plan.tokens.to(device, model.dtype)])[order],
        positions=positions,
        renumbers=layout.renumbers,
        plan=plan,
        origin=origin,
        visual=row[len(others) :],
        others=row[: len(others)],
        n_after=layout.n_after,
        next_position=end,
        deepstack=None if clip.visual.deepstack is None else _deepstack_at(clip, clip.visual.deepstack, origin),
    )


def _deepstack_at(clip: Clip, deepstack: Tensor, origin: Tensor) -> Tensor:
    """Rows of `deepstack` (steps, c, L, d) that belong to the tokens of these origins, (V, L, d)."""
    c = deepstack.shape[1]
    place = torch.zeros(clip.n_frames, dtype=torch.long)
    place[list(clip.frames)] = torch.arange(len(clip.frames))
    return deepstack.flatten(0, 1)[place.to(origin.device)[origin // c] * c + origin % c]


def prefill(model: VideoLLM, sequences: list[Sequence]) -> list[Prefilled]:
    """Run prompts on different clips through the decoder, dropping tokens where their plans say so."""
    done = [Prefilled(s.embeddings.new_empty(0), len(s.others)) for s in sequences]
    run_layers(model, sequences, done, 0)
    return done


@torch.inference_mode()
def run_layers(model: VideoLLM, sequences: list[Sequence], done: list[Prefilled], begin: int) -> None:
    """The layers from `begin` on, and the logits after them; `embeddings` is what enters layer `begin`."""
    decoder = model.decoder
    hidden = torch.cat([s.embeddings for s in sequences])  # (R, d)
    for sequence in sequences:
        sequence.embeddings = hidden.new_empty(0)  # `hidden` holds them now
    rotation = rope(decoder, hidden, torch.cat([s.positions for s in sequences], 1))
    packed = Packed.of([len(s) for s in sequences], hidden.device)
    for index, layer in enumerate(decoder.layers[begin:], begin):
        hidden, rotation = _cut_all(decoder, index, layer, sequences, hidden, rotation)
        if sum(packed.lengths) != len(hidden):
            packed = Packed.of([len(s) for s in sequences], hidden.device)
        hidden = _attention(layer, index, sequences, done, hidden, rotation, packed)
        hidden = add_mlp(layer, hidden)
        if index < model.family.deepstack_layers:
            _add_deepstack(index, sequences, hidden)
    last = torch.tensor([len(s) for s in sequences], device=hidden.device).cumsum(0) - 1
    logits = model.hf.lm_head(decoder.norm(hidden[last])).float()  # (clips, vocabulary)
    for result, row in zip(done, logits, strict=True):
        result.logits = row


def _attention(
    layer: Any,
    index: int,
    sequences: list[Sequence],
    done: list[Prefilled],
    hidden: Tensor,
    rotation: Rope,
    packed: Packed,
) -> Tensor:
    """A layer's first half; keeps each clip's KV and scores the next cut. Its tensors end before the MLP begins."""
    query, key, value = project(layer, hidden, rotation)
    parts = zip(*(torch.split(x, packed.lengths) for x in (query, key, value)), strict=True)
    for sequence, result, (q, k, v) in zip(sequences, done, parts, strict=True):
        if (cut := cut_at(sequence.plan, index + 1)) and cut.scored_by == "previous":
            sequence.scores = score(sequence, cut, q, k, layer)
        keep(result, sequence, k, v)
    return add_attention(layer, hidden, attend(query, key, value, packed))


def keep(result: Prefilled, sequence: Sequence, key: Tensor, value: Tensor) -> None:
    """What one layer leaves of a prompt."""
    result.keys.append(key)
    result.values.append(value)
    result.origins.append(sequence.origin)
    result.next_positions.append(sequence.next_position)


def _add_deepstack(index: int, sequences: list[Sequence], hidden: Tensor) -> None:
    """Add the tower's features for layer `index` at the visual tokens alive, in place."""
    begin, rows, features = 0, [], []
    for sequence in sequences:
        if sequence.deepstack is not None:
            rows.append(begin + sequence.visual)
            features.append(sequence.deepstack[:, index])
        begin += len(sequence)
    hidden.index_add_(0, torch.cat(rows), torch.cat(features).to(hidden.dtype))


def cut_at(plan: Plan, layer: int) -> Cut | None:
    return next((cut for cut in plan.cuts if cut.layer == layer), None)


def score(sequence: Sequence, cut: Cut, query: Tensor, key: Tensor, layer: Any) -> Tensor:
    n_rows = sequence.n_after if cut.rows == "text" else 1
    return attention_received(query[-n_rows:], key, sequence.visual, layer.self_attn.scaling)


def _cut_all(
    decoder: Any, index: int, layer: Any, sequences: list[Sequence], hidden: Tensor, rotation: Rope
) -> tuple[Tensor, Rope]:
    """Make the cuts due on entry to layer `index`: one gather over the packed rows, or nothing."""
    begin, keep_rows, dropped, renumbered = 0, [], False, False
    for sequence in sequences:
        length = len(sequence)
        rows = torch.arange(length, device=hidden.device)
        if cut := cut_at(sequence.plan, index):
            if cut.scored_by == "next":
                mine = slice(begin, begin + length)
                query, key, _ = project(layer, hidden[mine], (rotation[0][mine], rotation[1][mine]))
                sequence.scores = score(sequence, cut, query, key, layer)
            rows = _cut_one(sequence, cut)
            dropped |= len(rows) < length
            renumbered |= cut.renumber and sequence.renumbers
        keep_rows.append(begin + rows)
        begin += length
    if dropped:
        index_of_kept = torch.cat(keep_rows)
        hidden = hidden[index_of_kept]
        rotation = (rotation[0][index_of_kept], rotation[1][index_of_kept])
    if renumbered:
        rotation = rope(decoder, hidden, torch.cat([s.positions for s in sequences], 1))
    return hidden, rotation


def _cut_one(sequence: Sequence, cut: Cut) -> Tensor:
    """Drop what the cut does not select; every other token stays. Returns the sequence's kept rows, ascending."""
    assert sequence.scores is not None  # the layer that scores this cut has run
    keep = cut.select(sequence.origin, sequence.scores)
    alive, others = sequence.visual[keep], sequence.others
    rows = torch.cat([others, alive]).sort().values
    sequence.origin = sequence.origin[keep]
    sequence.visual, sequence.others = torch.searchsorted(rows, alive), torch.searchsorted(rows, others)
    if sequence.deepstack is not None:
        sequence.deepstack = sequence.deepstack[keep]
    sequence.positions = sequence.positions[:, rows]
    sequence.scores = None
    if cut.renumber and sequence.renumbers:
        sequence.positions, sequence.next_position = torch.arange(len(rows), device=rows.device)[None], len(rows)
    return rows
