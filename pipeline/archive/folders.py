"""Local files: folders walked, single files looked at by their inode alone, and their URIs."""

import os
import stat
from collections.abc import Callable, Iterator
from urllib.parse import quote_from_bytes, unquote_to_bytes

from pipeline.archive.found import Found, Progress, shown
from pipeline.errors import OutsideArchive, ReadFailed, SpecialFile


def file_uri(path: bytes) -> str:
    """file:// with RFC 3986 escaping of an absolute path's bytes."""
    return "file://" + quote_from_bytes(path, safe="/-._~")


def uri_of_path(path: str) -> str:
    """The URI that listing gives a local file."""
    return file_uri(absolute(os.fsencode(path)))


def path_of(uri: str) -> bytes:
    """The inverse of `file_uri`."""
    return unquote_to_bytes(uri.removeprefix("file://"))


def walk(
    root: bytes, wanted: Callable[[bytes], bool], is_video: Callable[[bytes], bool], progress: Progress
) -> Iterator[Found]:
    """Files below `root`, without recursion and without following links to folders."""
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as entries:
                children = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            progress.complaints.append(f"cannot list {shown(os.fsdecode(folder))}: {error.strerror}")
            continue
        for entry in children:
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
            if not is_video(entry.name) or not wanted(entry.path[len(root) :].lstrip(b"/")):
                progress.ignored += not entry.is_dir(follow_symlinks=False)
                continue
            yield inspect(entry.path, entry.is_symlink(), root)


def inspect(path: bytes, is_link: bool, root: bytes | None) -> Found:
    """One local file by its inode alone. `root` bounds where a symbolic link may lead; None: anywhere."""
    uri, name = file_uri(path), display(os.path.basename(path))
    try:
        status = os.stat(path)
    except OSError as error:
        refusal = SpecialFile if is_link else ReadFailed
        return Found(uri, path, name, "absent", 0, 0, refusal.__name__, f"cannot be reached: {error.strerror}")
    version = f"{status.st_size}-{status.st_mtime_ns}"
    refusal_name = message = None
    real = os.path.realpath(path) if is_link else path
    if root is not None and real != path and not real.startswith(root.rstrip(b"/") + b"/"):
        refusal_name, message = OutsideArchive.__name__, "a symbolic link that leaves the root"
    elif not stat.S_ISREG(status.st_mode):
        refusal_name, message = SpecialFile.__name__, f"not a regular file but {_kind(status.st_mode)}"
    return Found(uri, real, name, version, status.st_size, status.st_mtime_ns // 1000, refusal_name, message)


def named(path: bytes) -> Found:
    """A file the user named, or a line of a manifest."""
    path = absolute(path)
    return inspect(path, os.path.islink(path), None)


def absolute(path: bytes) -> bytes:
    """Absolute, with every link resolved but the last: two ways to a file give one URI, a link keeps its name."""
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(folder), name)


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def display(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
