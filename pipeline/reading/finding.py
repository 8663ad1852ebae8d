"""Words to moments, as people ask for them: one way for jobs.search, jobs.export and notebooks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.compute as pc

from pipeline.errors import UsageError
from pipeline.index.snapshot import Index
from pipeline.index.where import Where
from pipeline.items.evidence import FloatArray
from pipeline.reading.search import Found, Hit, as_caption, encoder_of, filterable_schema, search

_HITS_MERGED = 10
"""Segments looked at for each hit asked for, when neighbours are merged."""


@dataclass(frozen=True)
class SearchOptions:
    """What is shown of what is found. Scores are dot products with the text's vector."""

    top: int = 10
    where: str | None = None  # SQL condition on columns of segments and videos
    min_score: float | None = None  # hits below are left out
    weak: bool = True  # hits below the encoder's own threshold for being about the text are shown too
    look_alikes: bool = False  # of segments alike, show all instead of the best
    merge_s: float | None = None  # hits of a video at most so far apart are one, weak ones excepted
    include_deleted: bool = False

    def __post_init__(self) -> None:
        if self.top < 1:
            raise UsageError(f"--top {self.top} given; expected at least 1")
        if self.merge_s is not None and not self.merge_s >= 0:
            raise UsageError(f"--merge {self.merge_s} given; expected 0 or more seconds")
        if self.where is not None:
            Where(self.where, filterable_schema())


class Finder:
    """An index and its encoder, loaded once. UsageError when the encoder is not the one that made the index."""

    def __init__(self, index: Index, encoder: str | None = None, thresholds_file: Path | None = None) -> None:
        files, self.thresholds = encoder_of(index, encoder, thresholds_file)
        from pipeline.models.encoder import Encoder  # seconds of import that a mistyped command never pays

        self._index, self._encoder = index, Encoder(files.path)
        self.is_builtin = files.identity.id.startswith("builtin")

    def is_cut(self, text: str) -> bool:
        """Whether the text is longer than the encoder reads."""
        return bool(self._encoder.is_cut(as_caption(text)))

    def vector(self, text: str) -> FloatArray:
        """The unit vector of a text, (D,). UsageError for an empty one."""
        if not text.strip():
            raise UsageError("an empty text was given; expected some words")
        vector: FloatArray = self._encoder.texts([as_caption(text)])[0].numpy()
        return vector

    def find(self, text: str, options: SearchOptions) -> Found:
        return find(self._index, self.vector(text), options, self.thresholds.tau_s, self.thresholds.tau_t)


def find(index: Index, query: FloatArray, options: SearchOptions, tau_s: float, tau_t: float) -> Found:
    """Hits of the unit vector `query` (D,), best first. `tau_s`, `tau_t`: the encoder's thresholds."""
    merges = options.merge_s is not None
    same = 2.0 if options.look_alikes or merges else tau_s
    top = options.top * (_HITS_MERGED if merges else 1)
    found = search(index, query, top, _of_live(index, options), same)
    hits = [replace(hit, weak=hit.score < tau_t) for hit in found.hits]
    least = -2.0 if options.min_score is None else options.min_score
    strong = [hit for hit in hits if hit.score >= least and not hit.weak]
    weak = [hit for hit in hits if hit.score >= least and hit.weak and options.weak]
    if options.merge_s is not None:
        strong = merged(strong, options.merge_s)
    hits = [*strong, *weak]
    ranked = (replace(hit, rank=rank) for rank, hit in enumerate(hits[: options.top], start=1))
    return Found(tuple(ranked), found.n_searched)


def merged(hits: Sequence[Hit], gap_s: float) -> list[Hit]:
    """Hits of one video at most `gap_s` apart as one, with the best of them for its score; best first."""
    groups: list[list[Hit]] = []
    for hit in sorted(hits, key=lambda h: (h.video_id, h.start_s, h.end_s)):
        last = groups[-1] if groups else []
        if last and last[0].video_id == hit.video_id and hit.start_s - max(h.end_s for h in last) <= gap_s:
            last.append(hit)
        else:
            groups.append([hit])
    whole = []
    for group in groups:
        best = min(group, key=lambda h: h.rank)
        ends = min(h.start_s for h in group), max(h.end_s for h in group)
        whole.append(replace(best, start_s=ends[0], end_s=ends[1], n_similar=len(group) - 1))
    return sorted(whole, key=lambda h: h.rank)


def _of_live(index: Index, options: SearchOptions) -> str | None:
    """The condition, and that the video is there; null where that says nothing."""
    if options.include_deleted or not pc.any(pc.equal(index.read("videos", ["status"])["status"], "deleted")).as_py():
        return options.where
    live = "status <> 'deleted'"
    return live if options.where is None else f"(\n{options.where}\n) AND {live}"
