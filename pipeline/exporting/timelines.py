"""Spans as a cut list: OpenTimelineIO, and CMX 3600 edit lists by its own adapter.

In OpenTimelineIO each clip counts in its video's own rate. An edit list has one rate for all: times of videos of
another rate are converted to it, and those of irregular frames too. Time code of a source begins at zero with the first
frame a full decode outputs. 29.97 and 59.94 are counted in drop-frame time code.
"""

from collections.abc import Sequence
from fractions import Fraction

import opentimelineio as otio

from pipeline.exporting.rates import common_rate, frames_in, timecode_rate
from pipeline.exporting.spans import Span
from pipeline.exporting.subtitles import one_line


def as_otio(spans: Sequence[Span], title: str) -> str:
    """An OpenTimelineIO file: the spans one after the other on one video track, each as a clip with its text."""
    clips = []
    for number, span in enumerate(spans, start=1):
        clips.append(_clip(span, span.video.rate, number, frames_in(span.start_s, span.end_s, span.video.rate)))
    text: str = _timeline(clips, title).to_json_string()
    return text


def as_edl(spans: Sequence[Span], title: str, rate: Fraction | None = None) -> str:
    """A CMX 3600 edit list at `rate`, by default the one most of the videos have."""
    chosen = rate or edl_rate(spans)
    clips = []
    for number, span in enumerate(spans, start=1):
        clip = _clip(span, chosen, number, frames_in(span.start_s, span.end_s, chosen))
        clip.name = _plain(span.video.path)
        clip.media_reference = otio.schema.MissingReference()
        comments = [f"SOURCE FILE: {_plain(span.video.uri)}", f"COMMENT: {_plain(span.text)}"]
        clip.metadata["cmx_3600"] = {"reel": f"V{span.video.video_id[:7].upper()}", "comments": comments}
        clips.append(clip)
    text: str = otio.adapters.write_to_string(_timeline(clips, _plain(title)), "cmx_3600", rate=float(chosen))
    head, _, events = text.partition("\n\n")
    counted = "DROP FRAME" if is_drop_frame(chosen) else "NON-DROP FRAME"
    return f"{head}\nFCM: {counted}\n\n{events}"


def edl_rate(spans: Sequence[Span]) -> Fraction:
    """The rate most of the spans' videos have, as time code can count it."""
    return common_rate(timecode_rate(span.video.rate) for span in {s.video.video_id: s for s in spans}.values())


def is_drop_frame(rate: Fraction) -> bool:
    return rate in (Fraction(30000, 1001), Fraction(60000, 1001))


def _clip(span: Span, rate: Fraction, number: int, frames: tuple[int, int]) -> otio.schema.Clip:
    first, end = frames
    per_s = float(rate)
    whole = frames_in(0.0, max(span.video.duration_s, span.end_s), rate)[1]
    return otio.schema.Clip(
        name=f"{number:03d} {one_line(span.text)[:80]}",
        media_reference=otio.schema.ExternalReference(span.video.uri, _range(0, max(whole, end), per_s)),
        source_range=_range(first, end, per_s),
        metadata={
            "adatp": {"path": span.video.path, "start_s": span.start_s, "end_s": span.end_s, "text": span.text}
            | ({"variable_frame_rate": True} if span.video.is_vfr else {})
        },
    )


def _range(first: int, end: int, per_s: float) -> otio.opentime.TimeRange:
    return otio.opentime.TimeRange(
        otio.opentime.RationalTime(first, per_s), otio.opentime.RationalTime(end - first, per_s)
    )


def _timeline(clips: list[otio.schema.Clip], title: str) -> otio.schema.Timeline:
    timeline = otio.schema.Timeline(one_line(title))
    timeline.tracks.append(otio.schema.Track(kind=otio.schema.TrackKind.Video, children=clips))
    return timeline


def _plain(text: str) -> str:
    """One line of ASCII, as edit lists are read: other characters as backslash escapes."""
    return one_line(text).encode("ascii", "backslashreplace").decode()
