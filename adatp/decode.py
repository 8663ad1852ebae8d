"""Greedy decoding of clips that come and go: a finished clip's place is given to the next.

Each layer's cache is as long as what that layer saw of each clip. All clips are flush with one column at the right, so
that every step writes one column for all of them and a clip's mask is made once, when it comes.

Legend: B clips, N layers, C columns of a layer's buffer, K key heads, G queries per key head, D head size.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from adatp.decoder import add_attention, add_mlp, project
from adatp.model import VideoLLM
from adatp.prefill import Prefilled

_SPARE_COLUMNS = 64


@dataclass
class Generated:
    """Greedy continuation of one clip; the stop token itself is not among `token_ids`."""

    token_ids: list[int] = field(default_factory=list)
    finish_reason: str = "length"  # "stop" or "length"
    decode_ms: float = 0.0  # this clip's share: each step's time divided by the clips it advanced


@dataclass
class _LayerCache:
    """Keys and values of one layer, (B, K, C, D). Clip b stands in columns `first[b]` to `end`."""

    keys: Tensor
    values: Tensor
    mask: Tensor  # (B, C) bool: the columns from `first` on
    first: list[int] = field(default_factory=list)
    end: int = 0

    @classmethod
    def like(cls, sample: Tensor) -> "_LayerCache":
        """Empty. `sample`: keys of a clip, (L, K, D)."""
        empty = sample.new_empty(0, sample.shape[1], 0, sample.shape[2])
        return cls(empty, empty, torch.empty(0, 0, dtype=torch.bool, device=sample.device))

    def admit(self, keys: list[Tensor], values: list[Tensor]) -> None:
        """Further clips, each (L, K, D)."""
        longest = max(map(len, keys))
        self._make_room(len(self.first) + len(keys), longest)
        for key, value in zip(keys, values, strict=True):
            row, begin = len(self.first), self.end - len(key)
            self.keys[row, :, begin : self.end] = key.transpose(0, 1)
            self.values[row, :, begin : self.end] = value.transpose(0, 1)
            self.mask[row] = torch.arange(self.mask.shape[1], device=self.mask.device) >= begin
            self.first.append(begin)

    def _make_room(self, rows: int, longest: int) -> None:
        """Space for that many clips of up to `longest` columns, and for steps to come."""
        left = min(self.first, default=self.end)
        width = self.end - left  # what stands now
        end = max(width, longest)
        if rows <= len(self.keys) and longest <= self.end and self.end < self.keys.shape[2]:
            return
        n_rows = rows if not len(self.keys) else max(len(self.keys), rows)
        self.keys, self.values = (self._moved(x, n_rows, left, end) for x in (self.keys, self.values))
        shift = end - self.end
        self.first, self.end = [first + shift for first in self.first], end
        at = torch.arange(self.keys.shape[2], device=self.mask.device)
        begin = torch.tensor([*self.first, *[0] * (n_rows - len(self.first))], device=self.mask.device)
        self.mask = at >= begin[:, None]

    def _moved(self, old: Tensor, n_rows: int, left: int, end: int) -> Tensor:
        """A buffer in which the columns from `left` on end at `end`, with spare ones after it."""
        n, width = len(self.first), self.end - left
        new = old.new_zeros(n_rows, old.shape[1], end + _SPARE_COLUMNS + end // 8, old.shape[3])
        if n:
            new[:n, :, end - width : end] = old[:n, :, left : self.end]
        return new

    @property
    def width(self) -> int:
        """Columns of the longest clip."""
        return self.end - min(self.first, default=self.end)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Store this step's key and value, (B, K, D), and attend to all so far: (B, H, D) -> (B, H, D)."""
        n = len(self.first)
        if self.end == self.keys.shape[2]:
            self._make_room(n, 0)
        self.keys[:n, :, self.end], self.values[:n, :, self.end] = key, value
        self.end += 1
        left = min(self.first)
        grouped = query.view(*key.shape[:2], -1, key.shape[2])  # (B, K, G, D): the G queries of a key head are its rows
        mask = None if max(self.first) == left else self.mask[:n, None, None, left : self.end]
        keys, values = (x[:n, :, left : self.end] for x in (self.keys, self.values))
        return scaled_dot_product_attention(grouped, keys, values, attn_mask=mask).flatten(1, 2)

    def drop(self, row: int) -> None:
        """The clip goes; the last one takes its place."""
        last = len(self.first) - 1
        if row != last:
            span = slice(self.first[last], self.end)
            self.keys[row, :, span], self.values[row, :, span] = self.keys[last, :, span], self.values[last, :, span]
            self.mask[row] = self.mask[last]
            self.first[row] = self.first[last]
        self.first.pop()


class Batch:
    """The clips that are being continued."""

    def __init__(self, model: VideoLLM) -> None:
        self._model = model
        self._layers: list[_LayerCache] = []
        self._clips: list[tuple[object, Generated, int]] = []  # who asks, what came so far, at most so many tokens
        self._token: list[int] = []  # the last one of each
        self._positions: list[list[int]] = []  # N of the next one of each

    def __len__(self) -> int:
        return len(self._clips)

    def admit(self, clips: list[tuple[object, Prefilled, int]]) -> list[tuple[object, Generated]]:
        """(who asks, prefilled, max_new_tokens) of further clips. Returns those that end with their first token."""
        token = torch.stack([clip.logits for _, clip, _ in clips]).argmax(-1).tolist()
        done, staying = [], []
        for (who, clip, limit), first in zip(clips, token, strict=True):
            result = Generated()
            if self._note(result, first, limit):
                done.append((who, result))
            else:
                staying.append(clip)
                self._clips.append((who, result, limit))
                self._token.append(first)
                self._positions.append(list(clip.next_positions))
        if staying:
            self._layers = self._layers or [_LayerCache.like(keys) for keys in staying[0].keys]
            for index, layer in enumerate(self._layers):
                layer.admit([clip.keys[index] for clip in staying], [clip.values[index] for clip in staying])
                for clip in staying:  # the buffer holds them now
                    clip.keys[index] = clip.values[index] = clip.keys[index].new_empty(0)
        return done

    @torch.inference_mode()
    def step(self) -> list[tuple[object, Generated]]:
        """One token of every clip; returns those that end with it."""
        begun, n = time.perf_counter(), len(self._clips)
        widths = [layer.width for layer in self._layers]
        try:
            token = self._forward().argmax(-1).tolist()
        except torch.OutOfMemoryError:  # as if it had not begun
            for layer, width in zip(self._layers, widths, strict=True):
                layer.end -= layer.width - width
            raise
        for own in self._positions:
            own[:] = [position + 1 for position in own]
        ms = (time.perf_counter() - begun) * 1000 / n
        done, ended = [], []
        for row, (who, result, limit) in enumerate(self._clips):
            result.decode_ms += ms
            if self._note(result, token[row], limit):
                done.append((who, result))
                ended.append(row)
        self._token = token
        for row in reversed(ended):
            self._drop(row)
        return done

    def give_up_newest(self) -> list[object]:
        """Half of the clips, the last that came, go as if they had never come. Returns who asked."""
        gone = [self._clips[row][0] for row in range(len(self._clips) // 2, len(self._clips))]
        for row in reversed(range(len(self._clips) // 2, len(self._clips))):
            self._drop(row)
        return gone

    def give_up(self, is_meant: Callable[[object], bool]) -> None:
        """Clips of those meant go."""
        for row in reversed(range(len(self._clips))):
            if is_meant(self._clips[row][0]):
                self._drop(row)

    def _note(self, result: Generated, token: int, limit: int) -> bool:
        """Give a clip its token; whether that was its last."""
        if token in self._model.stop_token_ids:
            result.finish_reason = "stop"
            return True
        result.token_ids.append(token)
        return len(result.token_ids) == limit

    def _forward(self) -> Tensor:
        """The last token of every clip through the decoder -> logits (B, vocabulary)."""
        decoder, device = self._model.decoder, self._model.device
        token = torch.tensor(self._token, device=device)  # (B,)
        position = torch.tensor(self._positions, device=device).T  # (N, B)
        hidden = decoder.embed_tokens(token)  # (B, d)
        cos, sin = decoder.rotary_emb(hidden, position)  # (N, B, D): positions may differ between layers
        for index, layer in enumerate(decoder.layers):
            query, key, value = project(layer, hidden, (cos[index], sin[index]))
            hidden = add_attention(layer, hidden, self._layers[index].attend(query, key, value))
            hidden = add_mlp(layer, hidden)
        logits: Tensor = self._model.hf.lm_head(decoder.norm(hidden))
        return logits

    def _drop(self, row: int) -> None:
        for layer in self._layers:
            layer.drop(row)
        for column in (self._clips, self._token, self._positions):
            column[row] = column[-1]  # type: ignore[assignment]  # three lists of one length
            column.pop()
        if not self._clips:
            self._layers = []  # what they held goes with the last clip
