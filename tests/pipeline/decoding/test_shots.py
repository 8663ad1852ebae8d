"""Hard cuts, planted and real: against the slow obvious version, and against what is known of real clips."""

import csv
from pathlib import Path

import numpy as np
import pytest

from pipeline.decoding.decoder import Decoder
from pipeline.decoding.shots import AROUND, COLUMNS, LEAST, ROWS, SHARE, SHORTEST, TIMES, ShotDetector
from pipeline.planted.archive import LEAD_S, render_archive
from tests.videos import VIDEOS, needs_videos, open_video


def begins_of(pictures: np.ndarray) -> list[int]:
    detector = ShotDetector()
    for number, picture in enumerate(pictures):
        detector.push(number / 25, picture)
    detector.finish()
    return [begin.frame for begin in detector.begins]


def by_the_book(pictures: np.ndarray) -> list[int]:
    """All steps at once."""
    n = len(pictures)
    blocks = pictures.reshape(n, ROWS, 3, COLUMNS, 3, 3).mean((2, 4), dtype=np.float32)
    steps = np.abs(np.diff(blocks, axis=0)).mean(-1).reshape(n - 1, -1)
    begins = [0]
    for i in range(n - 1):
        near = [j for j in range(max(0, i - AROUND), min(n - 1, i + AROUND + 1)) if j != i]
        if not near or i + 1 < SHORTEST or n - (i + 1) < SHORTEST:
            continue
        jumped = (steps[i] >= LEAST) & (steps[i] >= TIMES * steps[near].mean(0))
        if jumped.mean() >= SHARE and steps[i].mean() >= steps[near].mean(1).max():
            begins.append(i + 1)
    return begins


@pytest.mark.parametrize("seed", range(6))
def test_one_frame_after_the_other_is_all_at_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scenes = [rng.integers(0, 256, (1, 27, 48, 3)) for _ in range(6)]
    noisy = [np.repeat(scene, rng.integers(1, 30), 0) for scene in scenes]
    pictures = np.concatenate(noisy) + rng.integers(-3, 4, (sum(map(len, noisy)), 27, 48, 3))
    found = pictures.clip(0, 255).astype(np.uint8)
    assert begins_of(found) == by_the_book(found)


def test_a_cut_is_found_a_pan_and_an_overlay_are_not() -> None:
    rng = np.random.default_rng(1)
    wide = rng.integers(0, 256, (27, 400, 3)).astype(np.uint8)
    still = np.repeat(wide[None, :, :48], 30, 0)
    pan = np.stack([wide[:, 48 + 4 * i : 96 + 4 * i] for i in range(60)])
    overlay = still.copy()
    overlay[10:20, 18:25, 4:44] = 255
    assert begins_of(np.concatenate([still, still[::-1] // 3 + 100])) == [0, 30]
    assert begins_of(pan) == [0]
    assert begins_of(overlay) == [0]
    assert begins_of(still[:1]) == [0]


def test_planted_cuts_are_found_at_their_frame(tmp_path: Path) -> None:
    """Rendered clips whose rooms change: each change is where a shot begins, and shots begin nowhere else."""
    truth = render_archive(tmp_path, seed=3, n_videos=3, seconds=16)
    with Decoder() as decoder:
        for video in truth.videos:
            begins, n_frames, end_s = decoder.shots(str(tmp_path / video.name))
            assert [begin.start_s for begin in begins[1:]] == [cut - LEAD_S for cut in video.cuts_s]
            assert end_s == pytest.approx(n_frames / 4, abs=0.3)


@needs_videos
@pytest.mark.parametrize("name", ["prunevid_1917.mp4", "dj_video1.mp4", "fate_scte20.ts", "fate_vc1-wmapro.ismv"])
def test_real_cuts_are_found_within_a_frame_and_a_take_is_one_shot(name: str) -> None:
    with (VIDEOS / "CUTS.tsv").open() as table:
        (row,) = [row for row in csv.DictReader(table, delimiter="\t") if row["file"] == name]
    cuts = [float(cut) for cut in row["hard_cuts_s"].split(",") if cut]
    with Decoder() as decoder:
        begins, n_frames, end_s = decoder.shots(open_video(name))
    assert [begin.start_s for begin in begins[1:]] == pytest.approx(cuts, abs=end_s / n_frames + 0.006)
