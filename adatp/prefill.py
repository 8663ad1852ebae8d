"""Prefill in which pruned tokens are really dropped: each layer's KV keeps what that layer saw.

Several clips run packed, one after the other in one tensor, each with its own plan; nothing is padded.

Legend: R packed rows, L tokens of one sequence, V visual tokens alive, d hidden size, K key heads, D head size,
N layers.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from adatp.decoder import Rope, add_attention, add_mlp, attend, project, rope
from adatp.model import VideoLLM
from adatp.plan import Cut, Plan
from adatp.scores import attention_received


@dataclass
class Sequence:
    """One prompt on its way through the decoder: `header` tokens, the visual tokens alive, then `tail` tokens.

    The last `rows` of the tail are the text after the video; a trailing newline vector belongs to the tail but not to
    them.
    """

    embeddings: Tensor  # (L, d)
    positions: Tensor  # (L,) int64
    plan: Plan
    origin: Tensor  # (V,) of the visual tokens alive
    header: int
    tail: int
    rows: int
    next_position: int  # position id of the first generated token; known without asking the device
    scores: Tensor | None = None  # (V,) of the latest scored layer, for the next cut

    @property
    def visual(self) -> slice:
        return slice(self.header, self.header + len(self.origin))

    def __len__(self) -> int:
        return len(self.positions)


@dataclass
class Prefilled:
    """What a prefill leaves of one clip."""

    logits: Tensor  # (vocabulary,) of the prompt's last token
    n_other: int  # T, positions that are not visual: header, newline, text
    keys: list[Tensor] = field(default_factory=list)  # N x (L_l, K, D), after RoPE
    values: list[Tensor] = field(default_factory=list)  # N x (L_l, K, D)
    next_positions: list[int] = field(default_factory=list)  # N: position id of the first generated token, per layer
    origins: list[Tensor] = field(default_factory=list)  # N x (V_l,) visual tokens that entered each layer


def embed(model: VideoLLM, ids: list[int], plan: Plan, n_visual: int) -> Sequence:
    """Lay out a prompt's embeddings around the plan's tokens.

    Args:
        ids: prompt with one placeholder for the video. n_visual: V0, of the unpruned prompt.
    """
    at = ids.index(model.prompt.video_token_id)
    device = model.device

    def words(some: list[int]) -> Tensor:
        return model.decoder.embed_tokens(torch.tensor(some, dtype=torch.long, device=device))  # type: ignore[no-any-return]  # untyped module

    newline = model.trailing_newline
    tail = [words(ids[at + 1 :])] if newline is None else [newline[None], words(ids[at + 1 :])]
    parts = [words(ids[:at]), plan.tokens.to(device, model.dtype), *tail]
    embeddings = torch.cat(parts)
    n_tail = sum(len(part) for part in tail)
    origin = plan.origin.to(device)
    if plan.keeps_positions:
        header_ids, tail_ids = torch.arange(at, device=device), torch.arange(n_tail, device=device)
        positions = torch.cat([header_ids, at + origin, at + n_visual + tail_ids])
        end = at + n_visual + n_tail
    else:
        positions, end = torch.arange(len(embeddings), device=device), len(embeddings)
    return Sequence(embeddings, positions, plan, origin, at, n_tail, rows=len(ids) - at - 1, next_position=end)


@torch.inference_mode()
def prefill(model: VideoLLM, sequences: list[Sequence]) -> list[Prefilled]:
    """Run the prompts through the decoder, dropping tokens where their plans say so."""
    decoder = model.decoder
    hidden = torch.cat([s.embeddings for s in sequences])  # (R, d)
    for sequence in sequences:
        sequence.embeddings = hidden.new_empty(0)  # `hidden` holds them now
    rotation = rope(decoder, hidden, torch.cat([s.positions for s in sequences]))
    done = [Prefilled(hidden.new_empty(0), s.header + s.tail) for s in sequences]
    for index, layer in enumerate(decoder.layers):
        hidden, rotation = _cut_all(decoder, index, layer, sequences, hidden, rotation)
        hidden = _attention(layer, index, sequences, done, hidden, rotation)
        hidden = add_mlp(layer, hidden)
    last = torch.tensor([len(s) for s in sequences], device=hidden.device).cumsum(0) - 1
    logits = model.hf.lm_head(decoder.norm(hidden[last])).float()  # (clips, vocabulary)
    for result, row in zip(done, logits, strict=True):
        result.logits = row
    return done


def _attention(
    layer: Any, index: int, sequences: list[Sequence], done: list[Prefilled], hidden: Tensor, rotation: Rope
) -> Tensor:
    """A layer's first half; keeps each clip's KV and scores the next cut. Its tensors end before the MLP begins."""
    lengths = [len(s) for s in sequences]
    query, key, value = project(layer, hidden, rotation)
    parts = zip(*(torch.split(x, lengths) for x in (query, key, value)), strict=True)
    for sequence, result, (q, k, v) in zip(sequences, done, parts, strict=True):
        if (cut := _cut_at(sequence.plan, index + 1)) and cut.scored_by == "previous":
            sequence.scores = _score(sequence, cut, q, k, layer)
        result.keys.append(k)
        result.values.append(v)
        result.origins.append(sequence.origin)
        result.next_positions.append(sequence.next_position)
    return add_attention(layer, hidden, attend(query, key, value, lengths))


def _cut_at(plan: Plan, layer: int) -> Cut | None:
    return next((cut for cut in plan.cuts if cut.layer == layer), None)


def _score(sequence: Sequence, cut: Cut, query: Tensor, key: Tensor, layer: Any) -> Tensor:
    n_rows = sequence.rows if cut.rows == "text" else 1
    return attention_received(query[-n_rows:], key, sequence.visual, layer.self_attn.scaling)


def _cut_all(
    decoder: Any, index: int, layer: Any, sequences: list[Sequence], hidden: Tensor, rotation: Rope
) -> tuple[Tensor, Rope]:
    """Make the cuts due on entry to layer `index`: one gather over the packed rows, or nothing."""
    begin, keep_rows, dropped, renumbered = 0, [], False, False
    for sequence in sequences:
        length = len(sequence)
        rows = torch.arange(length, device=hidden.device)
        if cut := _cut_at(sequence.plan, index):
            if cut.scored_by == "next":
                mine = slice(begin, begin + length)
                query, key, _ = project(layer, hidden[mine], (rotation[0][mine], rotation[1][mine]))
                sequence.scores = _score(sequence, cut, query, key, layer)
            rows = _cut_one(sequence, cut, rows)
            dropped |= len(rows) < length
            renumbered |= cut.renumber
        keep_rows.append(begin + rows)
        begin += length
    if dropped:
        index_of_kept = torch.cat(keep_rows)
        hidden = hidden[index_of_kept]
        rotation = (rotation[0][index_of_kept], rotation[1][index_of_kept])
    if renumbered:
        rotation = rope(decoder, hidden, torch.cat([s.positions for s in sequences]))
    return hidden, rotation


def _cut_one(sequence: Sequence, cut: Cut, rows: Tensor) -> Tensor:
    """Drop what the cut does not select; header, newline and text always stay. Returns the sequence's kept rows."""
    assert sequence.scores is not None  # the layer that scores this cut has run
    keep = cut.select(sequence.origin, sequence.scores)
    visual = sequence.visual
    rows = torch.cat([rows[: visual.start], rows[visual][keep], rows[visual.stop :]])
    sequence.origin = sequence.origin[keep]
    sequence.positions = sequence.positions[rows]
    sequence.scores = None
    if cut.renumber:
        sequence.positions, sequence.next_position = torch.arange(len(rows), device=rows.device), len(rows)
    return rows
