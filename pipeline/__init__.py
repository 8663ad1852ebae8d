"""The index of a video archive, in rooms. It knows no cluster size and no bucket.

`run.py` tells the story of a run; `config.py`, `types.py` and `errors.py` hold the words that every room uses. Each
folder is a room, and says in one sentence what it is for. Each heavy dependency has one door: Ray in
execution/on_ray.py, decoders in decoding/ffmpeg/, fsspec and s3fs in storage/, transformers in models/encoder.py.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.reading.open_index import open_index

__all__ = ["open_index"]


def __getattr__(name: str) -> Any:
    """`from pipeline import open_index`, without making every worker pay for what it imports."""
    if name != "open_index":
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    from pipeline.reading.open_index import open_index

    return open_index
