"""Found spans cut out of their videos, each a file: read from disk or S3, written by the decode child."""

import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.archive.recorded_file import as_indexed
from pipeline.decoding.decoder import Decoder
from pipeline.errors import VideoError
from pipeline.exporting.files import names_of
from pipeline.exporting.spans import Span


@dataclass(frozen=True)
class CutClip:
    """A span, and the file it became: times of its first frame and of the end of its last; or why there is none."""

    span: Span
    file: Path | None
    start_s: float | None = None
    end_s: float | None = None
    n_frames: int | None = None
    error: str | None = None
    is_copy: bool = False


def cut_clips(spans: Sequence[Span], folder: Path, copies: bool) -> Iterator[CutClip]:
    """Cut each span into `folder`, one after the other. What cannot be cut says why, and the next is cut.

    Re-encoded, a file holds exactly the frames whose time lies in the span; copied, it begins at a key frame.
    """
    stems = names_of((span.video for span in spans), "")
    with Decoder() as decoder:
        for number, span in enumerate(spans, start=1):
            stem = folder / stems[span.video.video_id].with_name(
                f"{stems[span.video.video_id].name}_{number:04d}_{_clock(span.start_s)}"
            )
            stem.parent.mkdir(parents=True, exist_ok=True)
            try:
                yield _cut(decoder, span, stem, copies)
            except VideoError as error:
                yield CutClip(span, None, error=str(error))


def _cut(decoder: Decoder, span: Span, stem: Path, copies: bool) -> CutClip:
    """Under a name that is not yet its own until it is whole."""
    partial = stem.with_name(f".{secrets.token_hex(8)}.part").absolute()
    try:
        with as_indexed(span.video.uri, span.video.version) as (path, fill):
            done = decoder.cut(path, str(partial), span.start_s, span.end_s, copies, fill)
        file = stem.absolute().with_name(stem.name + Path(done["path"]).suffix)
        os.replace(done["path"], file)
    finally:
        for left in partial.parent.glob(f"{partial.name}*"):
            left.unlink()
    return CutClip(span, file, done["start_s"], done["end_s"], done["n_frames"], is_copy=copies)


def _clock(seconds: float) -> str:
    """1h02m03.5s, without what is zero in front: for file names."""
    minutes, rest = divmod(round(seconds * 10), 600)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes:02d}m" if hours or minutes else "") + f"{rest / 10:04.1f}s"
