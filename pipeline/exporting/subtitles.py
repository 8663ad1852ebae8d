"""Spans as subtitles and chapters. Captions are anybody's text: what a format would read as its own is made harmless.

WebVTT escapes (&lt;). SRT has no escape, so a zero-width space parts what players would take for a tag; chapters
(FFMETADATA, which ffmpeg and mkvmerge's helpers read) escape with a backslash.
"""

import html
import re
from collections.abc import Callable, Sequence

from pysubs2 import SSAEvent, SSAFile

from pipeline.exporting.spans import Span

_NOTHING = "\u200b"  # a zero-width space
_BREAKS = re.compile(r"\\(?=[hnN])")  # what pysubs2 takes for a line break


def as_vtt(spans: Sequence[Span]) -> str:
    """WebVTT: one cue per span."""
    return _subtitles(spans, "vtt", lambda text: html.escape(text, quote=False))


def as_srt(spans: Sequence[Span]) -> str:
    """SubRip: one entry per span."""
    return _subtitles(spans, "srt", lambda text: re.sub(r"<|\{|--(?=>)", lambda found: found[0] + _NOTHING, text))


def as_chapters(spans: Sequence[Span]) -> str:
    """FFMETADATA chapters: `ffmpeg -i film.mp4 -i film.chapters.txt -map_metadata 1 -codec copy out.mp4`."""
    lines = [";FFMETADATA1"]
    for span in spans:
        start_ms, end_ms = _milliseconds(span)
        title = re.sub(r"([=;#\\])", r"\\\1", one_line(span.text))
        lines += ["[CHAPTER]", "TIMEBASE=1/1000", f"START={start_ms}", f"END={end_ms}", f"title={title}"]
    return "\n".join(lines) + "\n"


def one_line(text: str) -> str:
    """Text without line breaks and control characters: a blank line would end a cue, a newline a comment."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _subtitles(spans: Sequence[Span], form: str, escape: Callable[[str], str]) -> str:
    subtitles = SSAFile()
    for span in spans:
        start_ms, end_ms = _milliseconds(span)
        text = _BREAKS.sub(r"\\" + _NOTHING, escape(one_line(span.text)))
        subtitles.append(SSAEvent(start=start_ms, end=end_ms, text=text))
    return subtitles.to_string(form, keep_ssa_tags=True)


def _milliseconds(span: Span) -> tuple[int, int]:
    """At least a millisecond: players drop what lasts none."""
    start_ms = round(span.start_s * 1000)
    return start_ms, max(start_ms + 1, round(span.end_s * 1000))
