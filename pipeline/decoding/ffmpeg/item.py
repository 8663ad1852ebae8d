"""An item, consecutive clips of one video, by the cheapest way that is certain of its frames."""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.decoding.ffmpeg.by_decord import DECORD_FRAMES, decode_with_decord, frames_for_decord
from pipeline.decoding.ffmpeg.pictures import Picture, Studio
from pipeline.decoding.ffmpeg.sparse import SparsePass, Unproven
from pipeline.decoding.ffmpeg.video import Origin, Video
from pipeline.decoding.ffmpeg.whole import decode_all
from pipeline.types import ClipPlan, ResizeRecipe


@dataclass(frozen=True)
class Item:
    """What an item's decoding gave: by clip, ticks of its frames; and the pictures by ticks."""

    clips: list[tuple[ClipPlan, list[int]]]
    pictures: dict[int, Picture]
    seconds: dict[int, float]
    decoder: str
    coverage: float
    bad_packets: int


def decode_item(
    video: Video,
    clips: list[ClipPlan],
    model: ResizeRecipe,
    encoder: ResizeRecipe | None,
    avoid: str | None,
    announce: Callable[[str], None],
) -> Item:
    """Decode consecutive clips. `avoid` names a decoder whose child died on this video; `announce` tells which runs."""
    origin = video.origin()
    studio = Studio(video, origin.turn, model, encoder)
    targets = sorted({origin.ticks + video.ticks(t) for clip in clips for t in clip.targets_s})
    end = origin.ticks + video.ticks(clips[-1].end_s)
    decoder, coverage, bad = "decord", 1.0, 0
    try:
        if origin.absurd:
            raise Unproven("an absurd display matrix")
        frames = frames_for_decord(video) if _wants_decord(video, avoid) else None
        announce("decord" if frames else "pyav")
        if frames:
            shown = decode_with_decord(video, frames, targets, studio)
        else:
            decoder, shown = "pyav", SparsePass(video, targets, end, studio.take).run()
    except Unproven:
        studio.pictures.clear()
        announce("pyav")
        decoder = "pyav"
        shown, coverage, bad = decode_all(video, targets, studio.take)
    by_clip = [(clip, _frames_of(clip, video, origin, shown)) for clip in clips]
    seconds = {ticks: video.seconds(ticks - origin.ticks) for ticks in studio.pictures}
    return Item(by_clip, studio.pictures, seconds, decoder, coverage, bad)


def _wants_decord(video: Video, avoid: str | None) -> bool:
    return avoid == "pyav" or (avoid is None and 0 < video.stream.frames <= DECORD_FRAMES)


def _frames_of(clip: ClipPlan, video: Video, origin: Origin, shown: dict[int, int]) -> list[int]:
    """Ticks of the clip's frames: with `unique`, those no earlier target of the video has taken."""
    frames = [shown[at] for t in clip.targets_s if (at := origin.ticks + video.ticks(t)) in shown]
    if not clip.unique:
        return frames
    before = None if clip.before_s is None else origin.ticks + video.ticks(clip.before_s)
    return [ticks for ticks in dict.fromkeys(frames) if before is None or ticks > before]
