"""Names of the files an export writes: those of the archive, made safe for any file system, one per video."""

import os
import secrets
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from pipeline.errors import UsageError
from pipeline.exporting.spans import SourceVideo

_MAX_BYTES = 180  # of one name; file systems take 255
_FORBIDDEN = frozenset('<>:"|?*\\')


def names_of(videos: Iterable[SourceVideo], suffix: str) -> dict[str, PurePosixPath]:
    """video_id -> relative path for its file, the archive's folders kept: `1999/tape01.srt` for `1999/tape01.mp4`.

    Where two videos would share a name (a.mp4 and a.mkv), theirs keep the ending: `a.mp4.srt`; should that be shared
    too, the video_id goes in.
    """
    chosen = {video.video_id: video for video in videos}
    safe = {video_id: _safe(video.path) for video_id, video in chosen.items()}
    short = {video_id: path.with_name(path.stem + suffix) for video_id, path in safe.items()}
    long = {video_id: path.with_name(path.name + suffix) for video_id, path in safe.items()}
    n_short, n_long = _counts(short.values()), _counts(long.values())
    found = {}
    for video_id, path in safe.items():
        if n_short[_folded(short[video_id])] == 1:
            found[video_id] = short[video_id]
        elif n_long[_folded(long[video_id])] == 1:
            found[video_id] = long[video_id]
        else:
            found[video_id] = path.with_name(f"{path.name}.{video_id[:12]}{suffix}")
    return found


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, its folders too. UsageError when it cannot be written."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error


def _counts(paths: Iterable[PurePosixPath]) -> Counter[str]:
    return Counter(map(_folded, paths))


def _folded(path: PurePosixPath) -> str:
    return str(path).casefold()


def _safe(path: str) -> PurePosixPath:
    return PurePosixPath(*([_safe_part(part) for part in path.split("/") if part not in ("", ".")] or ["video"]))


def _safe_part(part: str) -> str:
    """One name: no control or reserved character, no leading dash or dot, of a length any file system takes."""
    kept = "".join(char if char.isprintable() and char not in _FORBIDDEN else "_" for char in part).strip()
    kept = "_" + kept[1:] if kept[:1] in ("-", ".") else kept
    data = kept.encode()
    if len(data) > _MAX_BYTES:
        stem, ending = PurePosixPath(kept).stem, PurePosixPath(kept).suffix[:12]
        kept = stem.encode()[: _MAX_BYTES - 12].decode("utf-8", "ignore") + ending
    return kept or "_"
