"""Cut clips, frame by frame: planted numbers say which frames are in a file."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from pipeline.decoding.decoder import Decoder
from pipeline.errors import NoFrames, NotAVideo, Refused
from tests.pipeline.exporting.numbered import numbers_in, render
from tests.videos import hostile_video, needs_videos, open_video

RATES = {"23.976": Fraction(24000, 1001), "25": Fraction(25), "29.97": Fraction(30000, 1001)}
N = 60


def times_of(name: str) -> list[Fraction]:
    if name == "vfr":  # steps of one to four ticks of 1/50 s
        steps = [Fraction(1 + k * k % 4, 50) for k in range(N)]
        return [sum(steps[:k], Fraction(0)) for k in range(N)]
    return [k / RATES[name] for k in range(N)]


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as found:
        yield found


@pytest.mark.parametrize("name", [*RATES, "vfr"])
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_re_encoded_clip_holds_exactly_the_frames_asked_for(
    decoder: Decoder, tmp_path: Path, name: str, ending: str
) -> None:
    times = times_of(name)
    source = render(tmp_path / f"in.{ending}", times, RATES.get(name, Fraction(25)))
    for first, end in ((0, 1), (7, 31), (24, N)):
        start_s = float(times[first])
        end_s = float(times[end]) if end < N else 100.0
        if ending == "mkv":  # which keeps milliseconds
            start_s, end_s = round(start_s, 3), round(end_s, 3)
        done = decoder.cut(str(source), str(tmp_path / f"{first}"), start_s, end_s, copies=False)
        assert numbers_in(done["path"]) == list(range(first, end))
        assert done["n_frames"] == end - first
        assert done["start_s"] == pytest.approx(start_s, abs=1e-4)


@pytest.mark.parametrize("name", ["29.97", "vfr"])
def test_a_copied_clip_says_the_key_frame_it_begins_at(decoder: Decoder, tmp_path: Path, name: str) -> None:
    times = times_of(name)
    source = render(tmp_path / "in.mp4", times, RATES.get(name, Fraction(25)), key_every=12)
    done = decoder.cut(str(source), str(tmp_path / "out"), float(times[31]), float(times[40]), copies=True)
    numbers = numbers_in(done["path"])
    assert numbers[0] == 24, "the last key frame not after frame 31"
    assert done["start_s"] == pytest.approx(float(times[24]), abs=1e-4)
    assert set(range(24, 40)) <= set(numbers)
    assert numbers[-1] <= 43, "no more than what is reordered behind its end"


def test_a_span_outside_the_video_and_a_file_that_is_none_are_said(decoder: Decoder, tmp_path: Path) -> None:
    source = render(tmp_path / "in.mp4", times_of("25"), Fraction(25))
    for copies in (True, False):
        with pytest.raises(NoFrames, match="no frame between 50 and 51 s"):
            decoder.cut(str(source), str(tmp_path / "out"), 50, 51, copies)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(NotAVideo):
        decoder.cut(str(tmp_path / "text.mp4"), str(tmp_path / "out"), 0, 1, False)


@needs_videos
@pytest.mark.parametrize(
    ("name", "n_frames"),
    [
        ("mmaction2_test.avi", 38),
        ("fate_scte20.ts", 45),
        ("fate_vc1-wmapro.ismv", 36),
        ("fate_nellymoser-discont.flv", 36),
    ],
)
def test_real_containers(decoder: Decoder, tmp_path: Path, name: str, n_frames: int) -> None:
    """Frames of [1.0, 2.5) s by a plain decode of the whole file."""
    done = decoder.cut(open_video(name), str(tmp_path / "out"), 1.0, 2.5, copies=False)
    assert done["n_frames"] == n_frames


@needs_videos
def test_what_pulls_in_other_files_is_refused_as_in_indexing(decoder: Decoder, tmp_path: Path) -> None:
    with pytest.raises(Refused):
        decoder.cut(hostile_video("attack_ffconcat_renamed.mp4"), str(tmp_path / "out"), 0, 1, False)
