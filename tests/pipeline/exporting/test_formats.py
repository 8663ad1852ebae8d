"""Every format read back by a reader of its own, with hostile names and texts in it."""

import csv
import io
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path, PurePosixPath

import av
import opentimelineio as otio
import pysubs2
import pytest

from pipeline.exporting.files import names_of
from pipeline.exporting.rates import frames_in, timecode_rate
from pipeline.exporting.rows import as_csv, as_jsonl
from pipeline.exporting.spans import SourceVideo, Span
from pipeline.exporting.subtitles import as_chapters, as_srt, as_vtt
from pipeline.exporting.timelines import as_edl, as_otio, edl_rate

EVIL = "<b>x</b> 00:01 --> 00:02\n\n{\\an8}C:\\News & =cmd|;#\\\u2028é"
RATES = [Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(60000, 1001)]


def video(
    rate: Fraction = Fraction(25), path: str = "1999/tape01.mp4", number: int = 1, vfr: bool = False
) -> SourceVideo:
    return SourceVideo(
        f"{number:032x}", f"file:///a/{number}.mp4", "file:///a", path, path.rpartition("/")[2], "v", rate, vfr, 7300.0
    )


def span(start_s: float, end_s: float, text: str = EVIL, of: SourceVideo | None = None) -> Span:
    return Span(of or video(), start_s, end_s, text, {"score": 0.5})


@pytest.mark.parametrize("form", ["vtt", "srt"])
def test_subtitles_have_one_cue_per_span_whatever_the_text(form: str) -> None:
    text = (as_vtt if form == "vtt" else as_srt)([span(0, 1.5), span(3600.25, 3601, "b")])
    read = pysubs2.SSAFile.from_string(text, form, keep_html_tags=True)
    assert [(e.start, e.end) for e in read] == [(0, 1500), (3_600_250, 3_601_000)]
    assert text.count("-->") == 2
    assert "<b>" not in text
    assert "{\\an8}" not in text or form == "vtt"  # only SRT players read it


def test_chapters_are_read_by_ffmpeg(tmp_path: Path) -> None:
    file = tmp_path / "chapters.txt"
    file.write_text(as_chapters([span(0, 2), span(2, 4.5, "b")]))
    with av.open(str(file), format="ffmetadata") as read:
        chapters = read.chapters()
    assert [(c["start"] * c["time_base"], c["end"] * c["time_base"]) for c in chapters] == [(0, 2), (2, Fraction(9, 2))]
    assert chapters[0]["metadata"]["title"] == " ".join(EVIL.replace("\u2028", " ").split())


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("first", [0, 17982, 216_005])
def test_an_edit_list_is_read_with_the_right_frames(rate: Fraction, first: int) -> None:
    ends = [(first, first + 40), (first + 100, first + 101)]
    spans = [span(float(a / rate), float(b / rate), of=video(rate)) for a, b in ends]
    text = as_edl(spans, EVIL)
    assert text.isascii()
    read = otio.adapters.read_from_string(text, "cmx_3600", rate=float(rate))
    ranges = [clip.source_range for clip in read.tracks[0]]
    assert [(r.start_time.to_frames(), r.end_time_exclusive().to_frames()) for r in ranges] == ends
    assert f"FCM: {'' if rate.denominator == 1001 and rate > 24 else 'NON-'}DROP FRAME" in text
    assert [clip.name for clip in read.tracks[0]] == ["1999/tape01.mp4"] * 2
    records = [clip.range_in_parent() for clip in read.tracks[0]]
    assert records[1].start_time.to_frames() == 40


def test_videos_of_other_rates_are_converted_in_an_edit_list_and_keep_theirs_in_a_timeline() -> None:
    spans = [span(2, 4, of=video(Fraction(25), number=n)) for n in (1, 2)]
    spans.append(span(2, 4, of=video(Fraction(10), number=3)))
    spans.append(span(2.02, 4, of=video(Fraction(30000, 1001), number=4, vfr=True)))
    assert edl_rate(spans) == 25
    read = otio.adapters.read_from_string(as_edl(spans, "x"), "cmx_3600", rate=25)
    starts = [clip.source_range.start_time.to_frames() for clip in read.tracks[0]]
    assert starts == [50, 50, 50, 51]
    whole = otio.adapters.read_from_string(as_otio(spans, EVIL), "otio_json")
    found = [(clip.source_range.start_time.rate, clip.source_range.start_time.to_frames()) for clip in whole.tracks[0]]
    assert found == [(25, 50), (25, 50), (10, 20), (float(Fraction(30000, 1001)), 61)]
    assert whole.tracks[0][3].metadata["adatp"]["variable_frame_rate"] is True
    assert whole.tracks[0][0].media_reference.target_url == "file:///a/1.mp4"
    assert whole.tracks[0][0].metadata["adatp"]["text"] == EVIL
    assert frames_in(2, 4, timecode_rate(Fraction(10))) == (60, 120)


def test_tables_hold_texts_whole_and_no_formula() -> None:
    spans = [span(0, 1), span(1, 2, "=HYPERLINK(1)", of=video(path="@evil.mp4"))]
    rows = list(csv.DictReader(io.StringIO(as_csv(spans), newline="")))
    assert [row["text"] for row in rows] == [EVIL, "'=HYPERLINK(1)"]
    assert rows[1]["path"] == "'@evil.mp4"
    assert rows[0]["link"] == "file:///a/1.mp4#t=0"
    lines = as_jsonl(spans).splitlines()
    assert [json.loads(line)["text"] for line in as_jsonl(spans).split("\n")[:-1]] == [EVIL, "=HYPERLINK(1)"]
    assert len(lines) >= 2


def test_names_stay_inside_the_folder_and_apart() -> None:
    paths = [
        "../../etc/x.mp4",
        "a/b.mp4",
        "a/b.mkv",
        "A/B.mov",
        "-rf.mp4",
        ".hidden.mp4",
        "n\new\x00.mp4",
        "é" * 300 + ".mp4",
    ]
    videos = [video(path=path, number=n) for n, path in enumerate(paths)]
    names = list(names_of(videos, ".srt").values())
    assert len({str(name).casefold() for name in names}) == len(names)
    assert all(not name.is_absolute() and ".." not in name.parts for name in names)
    assert all(
        part[0] not in "-." and part.isprintable() and len(part.encode()) < 255 for n in names for part in n.parts
    )
    assert names[1:4] == [PurePosixPath(f"{path}.srt") for path in paths[1:4]]
    assert str(names_of([videos[1]], ".srt")[videos[1].video_id]) == "a/b.srt"


def test_a_span_is_lengthened_inside_its_video() -> None:
    long = replace(span(1, 7299)).padded(2)
    assert (long.start_s, long.end_s) == (0, 7300)
