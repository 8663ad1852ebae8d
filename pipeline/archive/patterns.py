"""Which names are videos, and which match a pattern of --include, --exclude or a glob."""

import fnmatch
import os
import re
from collections.abc import Callable

VIDEO_EXTENSIONS = frozenset(
    ["mp4", "m4v", "mov", "mkv", "webm", "avi", "ts", "m2ts", "mts", "mpg", "mpeg", "vob", "flv", "f4v", "ogv", "ogg"]
    + ["wmv", "asf", "ismv", "3gp", "3g2", "mxf", "gif", "m3u8", "mpd", "dv"]
)
GLOB = re.compile(rb"[*?\[]")


def is_video(name: bytes) -> bool:
    _, dot, extension = name.rpartition(b".")
    return bool(dot) and extension.lower().decode("latin-1") in VIDEO_EXTENSIONS


def extension_rule(pattern: bytes) -> Callable[[bytes], bool]:
    """A glob that spells out an extension asks for it; any other lists videos as a folder does."""
    suffix = os.path.splitext(pattern)[1]
    if not suffix or GLOB.search(suffix):
        return is_video
    return lambda name: name.endswith(suffix)


def wanted_by(relative: bytes | str, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    if not include and not exclude:
        return True
    name = os.fsdecode(relative)
    return (not include or any(fnmatch.fnmatchcase(name, pattern) for pattern in include)) and not any(
        fnmatch.fnmatchcase(name, pattern) for pattern in exclude
    )


def split_glob(path: bytes) -> tuple[bytes, bytes]:
    """The folder before the first part with a wildcard, and the pattern below it."""
    parts = path.split(b"/")
    first = next(i for i, part in enumerate(parts) if GLOB.search(part))
    return b"/".join(parts[:first]) or b"/", b"/".join(parts[first:])


def glob_matcher(pattern: bytes) -> Callable[[bytes | str], bool]:
    """Shell rules: * and ? stay inside a name, ** is any number of folders; a matched folder matches all below it."""
    parts = os.fsdecode(pattern).split("/")
    expression = "".join("(?:[^/]+/)*" if part == "**" else _part_expression(part) + "/" for part in parts)
    compiled = re.compile(expression, re.DOTALL)
    return lambda relative: compiled.match(os.fsdecode(relative) + "/") is not None


def _part_expression(part: str) -> str:
    def translated(token: str) -> str:
        if token in ("*", "?"):
            return "[^/]*" if token == "*" else "[^/]"
        if len(token) > 2 and token[0] == "[" and token[-1] == "]":
            negated = token[1] == "!"
            characters = token[1 + negated : -1].replace("\\", "\\\\").replace("[", "\\[").replace("^", "\\^")
            return f"[{'^/' if negated else ''}{characters}]"
        return re.escape(token)

    return "".join(map(translated, re.split(r"(\*|\?|\[!?\]?[^\]]*\])", part)))
