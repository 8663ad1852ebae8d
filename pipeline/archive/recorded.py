"""Which videos an index may name: those that lie under a root which one of its own runs was given.

jobs.ask and jobs.retry open videos by the URIs in the index's tables. Tables may have been written by others, so a row
is opened only where both hold:

1. the row's root is one that a run of jobs.index was given, as the log of runs records it;
2. the row's uri lies under that root: below the folder, prefix or a glob's fixed part, is the file, or stands in the
   manifest as it reads now. Links are followed first, so that neither ".." nor a link leads out.

Whoever can write the log of runs too can name another root. An index from somebody you do not trust is therefore asked
by an account that may read no more than the archive.
"""

import os
from collections.abc import Callable, Iterable, Sequence

from pipeline.archive.folders import absolute, file_uri, path_of
from pipeline.archive.manifests import MANIFEST_EXTENSIONS, manifest_uris
from pipeline.archive.patterns import GLOB
from pipeline.errors import UsageError
from pipeline.storage.s3 import is_s3


def refuse_strangers(index_url: str, videos: Iterable[tuple[str, str]], recorded: Sequence[str]) -> None:
    """UsageError naming the first of `videos` (uri, root) that no run of the index can have listed."""
    holders: dict[str, Callable[[str], bool]] = {}
    for uri, root in videos:
        if root not in holders:
            known = any(_is_root(root, given) for given in recorded)
            holders[root] = _holder_of(root) if known else lambda uri: False
        if not holders[root](uri):
            raise UsageError(
                f"{index_url} names the video {uri!r} under the root {root!r}, but no run of jobs.index was given "
                "that root, or the video lies outside of it; nothing of it was opened"
            )


def _is_root(root: str, given: str) -> bool:
    """Whether listing `given` makes rows of this root. Version 0.1 also recorded relative paths, without saying from
    where: those are compared by their end.
    """
    if is_s3(given):
        return root.rstrip("/") == given.rstrip("/")
    if is_s3(root):
        return False
    path = os.fsencode(given) if not given.startswith("file://") else path_of(given)
    if os.path.isabs(path):
        return root in (file_uri(os.path.abspath(path)), file_uri(absolute(path)), file_uri(os.path.realpath(path)))
    tail = os.path.normpath(path)
    while tail.startswith(b"../"):
        tail = tail[3:]
    return tail in (b".", b"..") or path_of(root).endswith(b"/" + tail)


def _holder_of(root: str) -> Callable[[str], bool]:
    """Whether a URI lies under this root."""
    if root.endswith(MANIFEST_EXTENSIONS) and (is_s3(root) or os.path.isfile(path_of(root))):
        lines = manifest_uris(root if is_s3(root) else os.fsdecode(path_of(root)))
        return lambda uri: uri in lines
    if is_s3(root):
        fixed = _fixed_part(root.encode()).decode()
        below = fixed.rstrip("/") + "/"
        return lambda uri: uri == root or (uri.startswith(below) and ".." not in uri.split("/"))
    folder = os.path.realpath(_fixed_part(path_of(root)))

    def holds(uri: str) -> bool:
        if not uri.startswith("file:///"):
            return False
        real = os.path.realpath(path_of(uri))
        return real == folder or real.startswith(folder.rstrip(b"/") + b"/")

    return holds


def _fixed_part(root: bytes) -> bytes:
    """A root without its parts from the first wildcard on."""
    found = GLOB.search(root)
    return root[: root.rfind(b"/", 0, found.start())] if found and not os.path.lexists(root) else root
