"""Videos taken up and cut into items: before any question on the whole of it, and for those questions."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import CLIPS_PER_ITEM, DescribeSetup, Recipe
from pipeline.index.snapshot import Index
from pipeline.index.staging import read_item, staged_path
from pipeline.items.evidence import Questions
from pipeline.items.item import Item, cut_into_items
from pipeline.items.stored_clips import again_items, answer_items, check_stored
from pipeline.ledger.plan import Todo
from pipeline.ledger.prepare import Prepared
from pipeline.ledger.video_work import VideoWork

_VIDEOS_AT_ONCE = 64
"""Videos whose rows of the listing, the ledger and the tables are read together."""

_CLIPS_AT_ONCE = 4096
"""Clips whose stored rows are read together."""


class Cutter:
    """Reads what the index holds of videos, and writes nothing."""

    def __init__(self, index: Index, prepared: Prepared, recipe: Recipe) -> None:
        self._index, self._prepared, self._recipe = index, prepared, recipe

    def setup(self, run_id: str) -> DescribeSetup:
        """What describe workers build themselves from."""
        prepared, config = self._prepared, self._prepared.config
        return DescribeSetup(
            model=prepared.model.identity,
            encoder=prepared.encoder.identity,
            thresholds=prepared.thresholds,
            recipe=self._recipe,
            prune=config.prune,
            p=config.p,
            max_new_tokens=config.max_new_tokens,
            keep_frames=config.keep_frames,
            device=config.device,
            run_id=run_id,
            batch_size=config.batch_size,
        )

    def taken_up(self, planned: Sequence[Todo]) -> Iterator[VideoWork]:
        """Videos in the order planned, read some at a time; one at work on stored clips comes with their rows."""
        rest = iter(planned)
        while todos := list(islice(rest, _VIDEOS_AT_ONCE)):
            videos = self.begin(todos)
            again = {id(v): (v, clips, segments) for v, clips, segments in self.stored(videos)}
            for video in videos:
                if id(video) in again:
                    video.stored = again[id(video)][1:]
                yield video

    def begin(self, todos: Sequence[Todo]) -> list[VideoWork]:
        """Videos with their rows of the listing, and of the ledger where the work is on stored clips."""
        listed = self._prepared.listing.table.take([todo.row for todo in todos]).to_pylist()
        again = [row["video_id"] for row, todo in zip(listed, todos, strict=True) if todo.mode == "again"]
        known = self._ledger_rows(again)
        return [
            VideoWork(row, todo, before=known.get(row["video_id"])) for row, todo in zip(listed, todos, strict=True)
        ]

    def items(self, video: VideoWork) -> list[Item]:
        """Its items, before any question on the whole of it. A video is probed, or its stored rows are read."""
        fingerprints = self._recipe.fingerprints
        if video.todo.mode == "index":
            if video.probed is None or video.probed.failure is not None:
                return []
            return cut_into_items(video.probed, video.todo.targets, fingerprints, CLIPS_PER_ITEM)
        if video.stored is None or not video.of_items:
            return []
        return again_items(video.source, *video.stored, video.of_items, fingerprints, CLIPS_PER_ITEM)

    def needs_asking(self, video: VideoWork) -> bool:
        """Whether questions on the whole video are still to be put: its own items could not answer them."""
        if not video.of_video:
            return False
        if video.todo.mode == "again":
            return video.stored is not None
        return len(video.items) > 1 and any(r.is_staged for r in video.receipts)

    def questions(self, video: VideoWork, embedded: Questions) -> list[Item]:
        """The items of its questions: it has several items, or its clips are stored."""
        clips, segments = video.stored if video.stored is not None else self._staged_rows(video)
        mine = {target: embedded.vectors[target] for target in video.of_video}
        return list(answer_items(video.source, clips, segments, mine, self._recipe.fingerprints))

    def stored(self, videos: Sequence[VideoWork]) -> Iterator[tuple[VideoWork, pa.Table, pa.Table]]:
        """Each video of work on stored clips with its rows of `clips` and `segments`, read for many at once."""
        group, n_clips = list[VideoWork](), 0
        for video in [*(v for v in videos if v.todo.mode == "again"), None]:
            mine = video.before["n_clips"] or 0 if video is not None and video.before is not None else 0
            if group and (video is None or n_clips + mine > _CLIPS_AT_ONCE):
                wanted = pc.field("video_id").isin([v.source.video_id for v in group])
                clips, segments = (self._index.read(table, filter=wanted) for table in ("clips", "segments"))
                for v in group:
                    of_video = pc.field("video_id") == v.source.video_id
                    rows = clips.filter(of_video), segments.filter(of_video)
                    check_stored(self._index.url, v.source.video_id, *rows)
                    yield v, *rows
                group, n_clips = [], 0
            if video is not None:
                group.append(video)
                n_clips += mine

    def _staged_rows(self, video: VideoWork) -> tuple[pa.Table, pa.Table]:
        keys = [receipt.item_key for receipt in video.receipts if receipt.is_staged]
        staged = [read_item(self._index.storage, staged_path(key)) for key in keys]
        return pa.concat_tables(s["clips"] for s in staged), pa.concat_tables(s["segments"] for s in staged)

    def _ledger_rows(self, ids: Collection[str]) -> Mapping[str, dict[str, Any]]:
        if not ids:
            return {}
        table = self._index.read("videos", filter=pc.field("video_id").isin(list(ids)))
        return {row["video_id"]: row for row in table.to_pylist()}
