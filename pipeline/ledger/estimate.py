"""What planned work would cost, from an index's own ratios: hours of video, visual tokens, seconds of workers.

Ratios are those of what the index holds: hours a byte, visual tokens an hour, seconds a video in each stage over all
runs. A first run has none of them and says "unknown".
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.archive.readable import readable
from pipeline.config import IndexConfig
from pipeline.decoding.decoder import Decoder
from pipeline.decoding.sampling import parse_sampling
from pipeline.errors import VideoError
from pipeline.index.snapshot import Index
from pipeline.types import Source


@dataclass(frozen=True)
class Ratios:
    """Of one index so far."""

    hours_per_byte: float
    tokens_per_hour: float | None  # visual tokens before pruning, for one prompt; None: nothing was captioned
    seconds_per_video: Mapping[str, float]  # stage -> seconds of one worker


def ratios_of(index: Index) -> Ratios | None:
    """None when nothing is indexed yet."""
    videos = index.read(
        "videos", ["duration_s", "size_bytes"], pc.field("status").isin(["indexed", "partial"])
    ).drop_null()
    hours, n_bytes = (pc.sum(videos["duration_s"]).as_py() or 0.0) / 3600, pc.sum(videos["size_bytes"]).as_py() or 0
    if not hours or not n_bytes:
        return None
    captions = index.read("captions", ["start_s", "end_s", "n_visual_tokens"])
    captioned_h = (pc.sum(pc.subtract(captions["end_s"], captions["start_s"])).as_py() or 0.0) / 3600
    tokens = pc.sum(captions["n_visual_tokens"]).as_py() / captioned_h if captioned_h else None
    seconds: Counter[str] = Counter()
    n_videos = 0
    for stages in index.read("runs", ["stages"])["stages"].to_pylist():
        took = {stage["stage"]: stage for stage in stages}
        n_videos += took["probe"]["items"] if "probe" in took else 0
        for stage, entry in took.items():
            seconds[stage] += entry["seconds"]
    return Ratios(hours / n_bytes, tokens, {s: t / n_videos for s, t in seconds.items()} if n_videos else {})


def estimate(ratios: Ratios | None, sizes: Sequence[int], n_prompts: int, hours: float | None) -> str:
    """One line on videos of these sizes in bytes; `hours` when headers were read, else from their bytes."""
    if hours is None and ratios is not None:
        hours = sum(sizes) * ratios.hours_per_byte
    parts = ["unknown hours (--probe reads headers)" if hours is None else f"{hours:.3g} hours of video"]
    if ratios is None or hours is None:
        return f"{parts[0]}, unknown tokens and seconds: this index has no run to go by"
    if not n_prompts:
        parts.append("no tokens")
    elif ratios.tokens_per_hour is None:
        parts.append("unknown tokens")
    else:
        parts.append(f"{hours * ratios.tokens_per_hour * n_prompts:,.0f} visual tokens before pruning")
    parts += [f"{s} {t * len(sizes):,.1f} worker-s" for s, t in sorted(ratios.seconds_per_video.items())]
    return ", ".join(parts)


def probed_hours(rows: pa.Table, config: IndexConfig) -> tuple[float, int]:
    """(hours of these rows of a listing by their headers, how many could not be read). Opens each in a decode child."""
    sampling, seconds, unread = parse_sampling(config.sampling), 0.0, 0
    with Decoder(config.bounds) as decoder:
        for row in rows.to_pylist():
            try:
                with readable(Source(row["video_id"], row["uri"], row["path"], row["version"])) as file:
                    seconds += decoder.probe(file.path, sampling, file.filler).duration_s
            except VideoError:
                unread += 1
    return seconds / 3600, unread
