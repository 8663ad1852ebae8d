"""Mutated copies of small real clips through the real decode child: a hundred in every run, thousands by night.

A video may give frames or any VideoError; it may not outlast its deadline, kill the child through an error of ours, or
change what its neighbours give.
"""

import random
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from pipeline.decoding.decoder import Decoder
from pipeline.decoding.sampling import Every, Sampling, Uniform, plan_clips
from pipeline.errors import DecodeCrashed, DecodeTimeout, VideoError
from pipeline.types import Bounds, Decoded, ResizeRecipe
from tests.videos import hostile_video, needs_videos, open_video

SEEDS = {
    "tiny_valid.mp4": hostile_video,
    "decord_video_90.mov": open_video,
    "av1_video.mkv": open_video,
    "real_small_185bytes.webm": hostile_video,
    "real_fate_neg_first_pts.mov": hostile_video,
    "real_moz_0-timescale.mp4": hostile_video,
    "real_exo_fragmented_dur143165s.mp4": hostile_video,
    "fate_vc1-wmapro.ismv": open_video,
    "fate_offset_test.ogv": open_video,
    "mmaction2_test.avi": open_video,
    "fate_nellymoser-discont.flv": open_video,
    "fate_scte20.ts": open_video,
    "newtonscradle.gif": open_video,
}
MAX_BYTES = 120_000  # of a seed: its beginning is what is mutated
BOXES = (
    b"moov",
    b"trak",
    b"mdia",
    b"minf",
    b"stbl",
    b"stts",
    b"stsc",
    b"stsz",
    b"stco",
    b"ctts",
    b"elst",
    b"mdhd",
    b"moof",
)


def boxes(data: bytes) -> list[int]:
    """Where an ISO media box seems to begin: its size field."""
    return [match.start() - 4 for match in re.finditer(b"|".join(BOXES), data) if match.start() >= 4] or [0]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to three of: bits flipped, cut at a box or anywhere, a box size changed, a span repeated or zeroed."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        kind = rng.choice(("bits", "bits", "header bits", "box cut", "cut", "box size", "span", "zero"))
        at, size = rng.randrange(len(changed)), rng.choice((4, 64, 1024))
        if kind == "bits":
            for _ in range(rng.choice((1, 8, 200))):
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        elif kind == "header bits":
            for _ in range(8):
                changed[rng.randrange(min(len(changed), 2000))] ^= 1 << rng.randrange(8)
        elif kind == "box cut":
            del changed[max(8, rng.choice(boxes(bytes(changed)))) :]
        elif kind == "cut":
            del changed[max(8, at) :]
        elif kind == "box size":
            at = rng.choice(boxes(bytes(changed)))
            changed[at : at + 4] = rng.choice((0, 1, 7, 8, 0x7FFFFFFF, 0xFFFFFFFF, len(changed))).to_bytes(4, "big")
        elif kind == "span":
            changed[at:at] = changed[at : at + size]
        else:
            changed[at : at + size] = bytes(len(changed[at : at + size]))
    return bytes(changed)


def index(decoder: Decoder, path: str, sampling: Sampling) -> Decoded:
    plans = plan_clips(decoder.probe(path, sampling), sampling)
    return decoder.decode(path, plans[:8], ResizeRecipe(16, 16), None)


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    with Decoder(Bounds(deadline_s=30.0)) as decoder:
        yield decoder


@needs_videos
@pytest.mark.parametrize("n", [100, pytest.param(5000, marks=[pytest.mark.nightly, pytest.mark.timeout(7200)])])
def test_mutated_clips(decoder: Decoder, tmp_path: Path, n: int) -> None:
    healthy = hostile_video("tiny_valid.mp4")
    expected = index(decoder, healthy, Every(Fraction(1)))
    seeds = {name: Path(find(name)).read_bytes()[:MAX_BYTES] for name, find in SEEDS.items()}
    for k in range(n):
        rng = random.Random(k)
        name = list(seeds)[k % len(seeds)]
        path = tmp_path / f"{k}{Path(name).suffix}"
        path.write_bytes(mutate(seeds[name], rng))
        try:
            index(decoder, str(path), rng.choice((Every(Fraction(1)), Every(Fraction(1, 3)), Uniform(8))))
        except DecodeTimeout as error:
            raise AssertionError(f"mutation {k} of {name} hangs") from error
        except VideoError as error:
            ours = isinstance(error, DecodeCrashed) and "signal" not in str(error)
            if ours:
                raise AssertionError(f"mutation {k} of {name} finds a mistake of the child") from error
        path.unlink()
        if k % 10 == 0:
            neighbour = index(decoder, healthy, Every(Fraction(1)))
            assert neighbour.clips[0].pts_s == expected.clips[0].pts_s
            assert (neighbour.clips[0].frames == expected.clips[0].frames).all()
