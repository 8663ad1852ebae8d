"""A contact sheet: the thumbnails of a video's segments in one JPEG, each with its time under it."""

import io
from collections.abc import Iterator, Mapping, Sequence

import pyarrow.compute as pc
from PIL import Image, ImageDraw, ImageFont

from pipeline.exporting.spans import Span
from pipeline.index.snapshot import Index

CELL = (256, 144)
_GAP, _LABEL = 8, 20
_BACK, _INK = (24, 24, 24), (230, 230, 230)


def sheets_of(index: Index, videos: Mapping[str, Sequence[Span]], most: int) -> Iterator[tuple[str, bytes]]:
    """(video_id, JPEG) for each video: pictures of the segments its spans touch, `most` of them, evenly spread."""
    columns = ["start_s", "end_s", "best_frame_s", "thumbnail"]
    for video_id, spans in videos.items():
        rows = index.read("segments", columns, pc.field("video_id") == video_id).sort_by("start_s").to_pylist()
        touched = [r for r in rows if any(s.start_s < r["end_s"] and r["start_s"] < s.end_s for s in spans)]
        shown = [touched[at] for at in evenly(len(touched), most)]
        yield video_id, contact_sheet([(r["best_frame_s"], r["thumbnail"]) for r in shown])


def contact_sheet(pictures: Sequence[tuple[float, bytes | None]], columns: int = 5) -> bytes:
    """A JPEG of (time, thumbnail) pairs in order, `columns` wide. A picture that cannot be read stays blank."""
    rows = max(1, -(-len(pictures) // columns))
    width = _GAP + columns * (CELL[0] + _GAP)
    sheet = Image.new("RGB", (width, _GAP + rows * (CELL[1] + _LABEL + _GAP)), _BACK)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for number, (time_s, jpeg) in enumerate(pictures):
        left = _GAP + number % columns * (CELL[0] + _GAP)
        top = _GAP + number // columns * (CELL[1] + _LABEL + _GAP)
        picture = _opened(jpeg)
        if picture is not None:
            at = left + (CELL[0] - picture.width) // 2, top + (CELL[1] - picture.height) // 2
            sheet.paste(picture, at)
        draw.text((left, top + CELL[1] + 2), _clock(time_s), _INK, font)
    out = io.BytesIO()
    sheet.save(out, "JPEG", quality=85)
    return out.getvalue()


def evenly(n: int, most: int) -> list[int]:
    """At most `most` of n places, evenly spread, first and last among them."""
    if n <= most:
        return list(range(n))
    return sorted({round(at * (n - 1) / max(1, most - 1)) for at in range(most)})


def _opened(jpeg: bytes | None) -> Image.Image | None:
    if not jpeg:
        return None
    try:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as picture:
            picture.thumbnail(CELL)
            return picture.convert("RGB")
    except OSError:
        return None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds * 10), 600)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest / 10:04.1f}"
