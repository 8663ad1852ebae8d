"""How a video is named to people: its path below its root, and a link to a moment of it."""

from urllib.parse import unquote_to_bytes

from pipeline.storage.s3 import is_s3


def path_in_root(uri: str, root: str) -> str:
    """The path of a video below the root that listed it, `1999/tape01.mp4`; bytes that are no UTF-8 as escapes.

    Below a file or a manifest lies nothing: then it is the path below the root's own folder, or the whole path where
    the video lies elsewhere. Of a glob it is the path below the last folder without a wildcard.
    """
    folder = root.rstrip("/")
    wild = min((at for at in map(folder.find, ("*", "?", "[", "%2A", "%3F", "%5B")) if at >= 0), default=None)
    if wild is not None:
        folder = folder[:wild].rpartition("/")[0]
    for base in (folder, folder.rpartition("/")[0]):
        if base.rpartition("/")[2] and uri.startswith(f"{base}/"):
            return _shown(uri, uri[len(base) + 1 :])
    return _shown(uri, uri.removeprefix("file://"))


def link_to(uri: str, start_s: float) -> str:
    """The moment of a video as a media fragment (W3C Media Fragments URI): players open `uri#t=12.5` there."""
    return f"{uri.replace('#', '%23')}#t={f'{start_s:.3f}'.rstrip('0').rstrip('.')}"


def _shown(uri: str, path: str) -> str:
    return path if is_s3(uri) else unquote_to_bytes(path).decode("utf-8", "backslashreplace")
