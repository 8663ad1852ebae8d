"""Hostile files, faults and orphans: every video ends in frames or in a VideoError, and its neighbours never notice."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import psutil
import pytest

from pipeline.decoding.decoder import Decoder
from pipeline.decoding.sampling import Every, plan_clips
from pipeline.errors import DecodeCrashed, DecodeTimeout, NoFrames, NotAVideo, SpecialFile, TooLarge, VideoError
from pipeline.types import Bounds, Decoded, ResizeRecipe
from tests.videos import HOSTILE, VIDEOS, hostile_video, needs_videos, open_video

RECIPE = ResizeRecipe(32, 48)
EVERY = Every(Fraction(1))
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as decoder:
        yield decoder


def index(decoder: Decoder, path: str) -> Decoded:
    """The first item of a video."""
    return decoder.decode(path, plan_clips(decoder.probe(path, EVERY), EVERY)[:8], RECIPE, None)


ERRORS = {
    "made_24h_86400frames_32x32.mp4": TooLarge,
    "made_absurd_duration.mp4": TooLarge,
    "made_bomb_8192x8192_24frames.mp4": TooLarge,
    "made_text_renamed.mp4": NotAVideo,
    "made_truncated_no_moov.mp4": NotAVideo,
    "made_zero_byte.mp4": NotAVideo,
    "real_exo_clearkey_encrypted.mp4": NoFrames,
    "real_exo_invalid-bitstream.webm": NoFrames,
    "real_fate_audio_plus_coverart.mp4": NotAVideo,
    "real_fate_dfa_game_format_as_mp4.mp4": NotAVideo,
    "real_flvmeta_poc2.flv": NotAVideo,
    "real_fq_audio_only_aac.mp4": NotAVideo,
    "real_mopt_fuzzed_0.mp4": NotAVideo,
    "real_moz_0-timescale.mp4": NoFrames,
    "real_moz_bug495129.ogv": NoFrames,
    "real_mp4parse_0frames_init.mp4": NoFrames,
    "real_mp4parse_chunk_out_of_range.mp4": NotAVideo,
    "real_mp4parse_invalid_userdata.mp4": NoFrames,
}
DAMAGED = {  # bad packets and frames by DECODERS.tsv
    "made_bitflips_midstream.mp4",
    "made_truncated_half_faststart.mp4",
    "real_decord_corrupted.mp4",
    "real_fate_tscc_claims_50848_frames.avi",
    "real_mp4parse_no_timescale.mp4",
}


@needs_videos
@pytest.mark.parametrize("name", [n for n in HOSTILE if not n.startswith("attack_") and n != "made_png_renamed.mp4"])
def test_hostile_file_gives_frames_or_its_error(decoder: Decoder, name: str) -> None:
    if name in ERRORS:
        with pytest.raises(ERRORS[name]):
            index(decoder, hostile_video(name))
        return
    decoded = index(decoder, hostile_video(name))
    assert decoded.clips
    assert (decoded.coverage < 1) == (name in DAMAGED)
    assert (decoded.bad_packets > 0) == (name in DAMAGED)


@needs_videos
def test_a_child_stays_small_on_hostile_files() -> None:
    peak = 0
    with Decoder() as decoder:
        for name in HOSTILE:
            with suppress(VideoError):
                index(decoder, hostile_video(name))
            status = Path(f"/proc/{decoder.child_pid()}/status").read_text()
            peak = max(peak, int(status.split("VmHWM:")[1].split()[0]))
    assert peak < 2_000_000, f"{peak} kB resident"


@needs_videos
def test_special_files_and_names(decoder: Decoder, tmp_path: Path) -> None:
    subprocess.run(["sh", str(VIDEOS / "make_special.sh"), str(tmp_path)], check=True, stderr=subprocess.DEVNULL)
    for name, error in {
        "fifo.mp4": SpecialFile,
        "loop_dir": SpecialFile,
        "dangling.mp4": SpecialFile,
        "directory_named.mp4": SpecialFile,
        "symlink_to_etc_hostname.mp4": NotAVideo,
        "sparse_8GiB_zeros.mp4": NotAVideo,
    }.items():
        start = time.monotonic()
        with pytest.raises(error):
            decoder.probe(str(tmp_path / "special" / name), EVERY)
        assert time.monotonic() - start < 20
    with pytest.raises(VideoError):  # ReadFailed; root reads it and finds it empty
        decoder.probe(str(tmp_path / "special" / "unreadable.mp4"), EVERY)
    expected = index(decoder, hostile_video("tiny_valid.mp4"))
    found = [os.path.join(at, f) for at, _, files in os.walk(tmp_path / "names") for f in files]
    assert len(found) == 8
    for path in found:
        decoded = index(decoder, path)
        assert decoded.clips[0].pts_s == expected.clips[0].pts_s
        assert (decoded.clips[0].frames == expected.clips[0].frames).all()


@needs_videos
def test_bounds_are_read_before_decoding() -> None:
    path = open_video("prunevid_1917.mp4")
    for bounds in (Bounds(max_megapixels=0.1), Bounds(max_hours=0.005), Bounds(max_samples=10)):
        with Decoder(bounds) as decoder, pytest.raises(TooLarge):
            decoder.probe(path, EVERY)
    with Decoder(Bounds(max_samples=33)) as decoder:
        decoder.probe(path, EVERY)


def faulty(fault: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "tests.pipeline.decoding.faulty_child", fault)


@pytest.fixture
def poisoned(tmp_path: Path) -> tuple[str, str]:
    """A file that sets the fault off, and its healthy twin."""
    poison, healthy = tmp_path / "poison.mkv", tmp_path / "healthy.mkv"
    for path in (poison, healthy):
        shutil.copy(open_video("flipping_a_pancake.mkv"), path)
    return str(poison), str(healthy)


@needs_videos
@pytest.mark.parametrize(
    ("fault", "error"),
    [("hang", DecodeTimeout), ("segfault", DecodeCrashed), ("abort", DecodeCrashed), ("garble", DecodeCrashed)]
    + [("bomb", TooLarge)],
)
def test_a_fault_costs_its_video_and_no_neighbour(fault: str, error: type, poisoned: tuple[str, str]) -> None:
    poison, healthy = poisoned
    with Decoder(Bounds(deadline_s=2.0 if fault == "hang" else 30.0, memory_bytes=1 << 30), faulty(fault)) as decoder:
        before = index(decoder, healthy)
        start = time.monotonic()
        with pytest.raises(error):
            index(decoder, poison)
        assert time.monotonic() - start < 60
        after = index(decoder, healthy)
    assert (before.clips[0].frames == after.clips[0].frames).all()


@needs_videos
def test_decord_takes_over_where_pyav_crashes(tmp_path: Path) -> None:
    """The second try is decord's, with the same frames, where decord is proven right."""
    path = tmp_path / "poison.mp4"
    shutil.copy(open_video("dj_video1.mp4"), path)
    with Decoder() as decoder:
        plans = plan_clips(decoder.probe(str(path), EVERY), EVERY)
        expected = decoder.decode(str(path), plans, RECIPE, None)
    with Decoder(command=faulty("segfault-sparse")) as decoder:
        decoded = decoder.decode(str(path), plans, RECIPE, None)
    assert (expected.decoder, decoded.decoder) == ("pyav", "decord")
    assert decoded.clips[0].pts_s == expected.clips[0].pts_s
    assert (decoded.clips[0].frames == expected.clips[0].frames).all()
    assert decoded.clips[0].thumbnails == expected.clips[0].thumbnails


def test_a_child_dies_with_its_owner() -> None:
    script = (
        "import time; from pipeline.decoding.decoder import Decoder\n"
        "decoder = Decoder(); print(decoder.child_pid(), flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT, text=True)
    assert owner.stdout is not None
    child = psutil.Process(int(owner.stdout.readline()))
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    gone, _ = psutil.wait_procs([child], timeout=5)
    assert gone or child.status() == psutil.STATUS_ZOMBIE


def test_a_child_is_small_confined_and_without_torch() -> None:
    with Decoder(Bounds(memory_bytes=1 << 30)) as decoder:
        child = psutil.Process(decoder.child_pid())
        maps = Path(f"/proc/{child.pid}/maps").read_text()
        assert "torch" not in maps
        assert "ray/" not in maps
        assert child.rlimit(psutil.RLIMIT_AS) == (1 << 30, 1 << 30)
        assert child.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
