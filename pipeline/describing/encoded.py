"""The frames of an item as visual tokens: each encoded at most once, whatever the number of prompts.

Legend: n frames of all clips together, c visual tokens of a frame.
"""

from collections.abc import Sequence
from itertools import accumulate

import adatp
from pipeline.describing.video_llm import Describer
from pipeline.models.pixels import DeviceFrames
from pipeline.types import ClipFrames


class EncodedFrames:
    """Consecutive clips; a place counts their frames from the first clip's first on.

    Where the pruning method looks at representative frames alone and the tower takes frames one by one, only the frames
    that some prompt needs are encoded. Otherwise clips are, whole.
    """

    def __init__(self, describer: Describer, clips: Sequence[ClipFrames], pixels: Sequence[DeviceFrames]) -> None:
        self._describer, self._clips, self._pixels = describer, clips, pixels
        self._first = [0, *accumulate(len(clip.pts_s) for clip in clips)]  # place of each clip's first frame, and n
        self._whole: dict[int, adatp.Visual] = {}  # by clip
        self._single: dict[int, adatp.Visual] = {}  # by place

    def show(self, places: Sequence[int], lengths: Sequence[int]) -> adatp.Visual:
        """What a request needs of the frames at `places`, which fall into segments of `lengths`."""
        chosen = self._describer.representatives(lengths)
        if chosen is None:
            return self._frames(places)
        wanted = [places[i] for i in chosen]
        for clip in {self._clip_of(place) for place in wanted if place not in self._single}:
            missing = [p for p in wanted if p not in self._single and self._clip_of(p) == clip]
            visual = self._describer.encode(
                self._clips[clip], self._pixels[clip], [p - self._first[clip] for p in missing]
            )
            if visual.members is not None or visual.times_s is not None:  # frames are not encoded, or told, one by one
                return self._frames(places)
            self._single |= {place: visual[[i]] for i, place in enumerate(missing)}
        return adatp.Visual.cat([self._single[place] for place in wanted])

    def of_clip(self, clip: int) -> range:
        """The places of a clip's frames."""
        return range(self._first[clip], self._first[clip + 1])

    def _frames(self, places: Sequence[int]) -> adatp.Visual:
        clips = sorted({self._clip_of(place) for place in places})
        for clip in clips:
            if clip not in self._whole:
                self._whole[clip] = self._describer.encode(self._clips[clip], self._pixels[clip])
        if len(clips) == 1:
            whole = self._whole[clips[0]]
            inside = [place - self._first[clips[0]] for place in places]
            return whole if inside == list(range(whole.n_frames)) else whole[inside]
        before = dict(zip(clips, accumulate([0, *(len(self._clips[c].pts_s) for c in clips)]), strict=False))
        inside = [before[self._clip_of(p)] + p - self._first[self._clip_of(p)] for p in places]
        return adatp.Visual.cat([self._whole[clip] for clip in clips])[inside]

    def _clip_of(self, place: int) -> int:
        return next(clip for clip in range(len(self._clips)) if place < self._first[clip + 1])
