"""Where the sample videos lie: beside the repository, never inside it. Where absent, tests skip, loudly."""

import warnings
from pathlib import Path

import pytest

VIDEOS = Path(__file__).resolve().parents[2] / "shared" / "videos"
OPEN = sorted(p.name for p in (VIDEOS / "open").glob("*")) if VIDEOS.is_dir() else []
HOSTILE = sorted(p.name for p in (VIDEOS / "hostile").glob("*")) if VIDEOS.is_dir() else []

if not OPEN:
    warnings.warn(f"no sample videos at {VIDEOS}: tests on real files are skipped", stacklevel=2)

needs_videos = pytest.mark.skipif(not OPEN, reason=f"the sample videos are not at {VIDEOS}")


def open_video(name: str) -> str:
    """Absolute path of a healthy sample."""
    return str(VIDEOS / "open" / name)


def hostile_video(name: str) -> str:
    """Absolute path of a hostile sample."""
    return str(VIDEOS / "hostile" / name)
