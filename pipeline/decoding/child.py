"""The decode child: the one process that lets FFmpeg see a video, through decoding/ffmpeg/. `decoder.py` owns it.

It reads requests from stdin and answers on stdout (pipe.py). It may hang, crash or want too much memory; then its
owner kills it, and the video has cost nobody else anything.
"""

import ctypes
import os
import resource
import signal
import sys
import time
from dataclasses import asdict
from typing import Any

import av.logging
import numpy as np

from pipeline.decoding.ffmpeg.cut import cut
from pipeline.decoding.ffmpeg.every_frame import find_shots
from pipeline.decoding.ffmpeg.item import decode_item
from pipeline.decoding.ffmpeg.pictures import Picture
from pipeline.decoding.ffmpeg.probe import probe
from pipeline.decoding.ffmpeg.ranged import Need
from pipeline.decoding.ffmpeg.video import Beat, Video
from pipeline.decoding.pipe import PipeClosed, receive, send
from pipeline.decoding.sampling import parse_sampling
from pipeline.errors import VideoError
from pipeline.types import Bounds, ClipPlan, ResizeRecipe

BEAT_S = 0.2


class Shelf:
    """Keeps the video of the last request open: probe and decode of one file mostly follow each other."""

    def __init__(self) -> None:
        self.key: tuple[object, ...] = ()
        self.video: Video | None = None

    def take(self, path: str, bounds: Bounds, beat: Beat, need: Need | None = None) -> Video:
        """An opened Video of the file as it is now; the caller puts it back unless it failed."""
        key, video, self.video = (path, bounds, _identity(path)), self.video, None
        if video is not None and key == self.key:
            video.beat, video.furthest, video.need = beat, -1, need
            return video
        if video is not None:
            video.close()
        self.key = key
        return Video(path, bounds, beat, need)

    def put_back(self, video: Video) -> None:
        self.video = video


def _identity(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def answer(shelf: Shelf, request: dict[str, Any], out: int) -> None:
    """Serve one request; whatever is wrong with the video becomes an answer too."""
    last = time.monotonic()

    def beat() -> None:
        nonlocal last
        if time.monotonic() - last > BEAT_S:
            last = time.monotonic()
            send(out, {"is": "beat"})

    def need(start: int, end: int) -> tuple[int, int]:
        send(out, {"is": "need", "start": start, "end": end})
        here = receive(0)[0]["here"]
        return int(here[0]), int(here[1])

    try:
        video = shelf.take(request["path"], Bounds(**request["bounds"]), beat, need if request.get("sparse") else None)
        try:
            serve(video, request, out)
        except BaseException:  # whatever ends it, the file is closed; raised again
            video.close()
            raise
        shelf.put_back(video)
    except VideoError as error:
        send(out, {"is": "error", "class": type(error).__name__, "message": str(error)})
    except MemoryError:
        limit = request["bounds"]["memory_bytes"]
        send(out, {"is": "error", "class": "TooLarge", "message": f"it wants more than {limit} bytes of memory"})


def serve(video: Video, request: dict[str, Any], out: int) -> None:
    if request["do"] == "probe":
        send(out, {"is": "probe", **asdict(probe(video, parse_sampling(request["sampling"], most=1_000_000)))})
    elif request["do"] == "shots":
        begins, n_frames, end_s = find_shots(video)
        rows = [[begin.frame, begin.start_s, begin.score] for begin in begins]
        send(out, {"is": "done", "begins": rows, "n_frames": n_frames, "end_s": end_s})
    elif request["do"] == "cut":
        done = cut(video, request["output"], request["start_s"], request["end_s"], request["copies"])
        send(out, {"is": "done", **asdict(done)})
    else:
        clips = [ClipPlan(**clip | {"targets_s": tuple(clip["targets_s"])}) for clip in request["clips"]]
        recipes = [ResizeRecipe(**r) if r else None for r in (request["model"], request["encoder"])]
        assert recipes[0] is not None
        item = decode_item(
            video,
            clips,
            recipes[0],
            recipes[1],
            request["avoid"],
            lambda name: send(out, {"is": "beat", "decoder": name}),
        )
        for clip, ticks in item.clips:
            if ticks:
                _send_clip(out, clip, [item.pictures[t] for t in ticks], [item.seconds[t] for t in ticks])
        send(out, {"is": "done", "decoder": item.decoder, "coverage": item.coverage, "bad_packets": item.bad_packets})


def _send_clip(out: int, clip: ClipPlan, pictures: list[Picture], pts_s: list[float]) -> None:
    shape = pictures[0].model.shape
    other = None if pictures[0].encoder is None else pictures[0].encoder.shape
    header = {
        "is": "clip",
        "clip_index": clip.clip_index,
        "pts_s": pts_s,
        "shape": shape,
        "encoder_shape": other,
        "thumbnail_bytes": [len(p.thumbnail) for p in pictures],
    }
    arrays = [p.model for p in pictures] + [p.encoder for p in pictures if p.encoder is not None]
    send(out, header, *(np.ascontiguousarray(a).reshape(-1).data for a in arrays), *(p.thumbnail for p in pictures))


def confine(memory_bytes: int, parent: int) -> None:
    """Limits of this process: memory, no core dump, and death with its owner."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(1, signal.SIGKILL, 0, 0, 0) != 0:  # PR_SET_PDEATHSIG
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before the call above
        os._exit(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def main(parent: int, memory_bytes: int) -> None:
    confine(memory_bytes, parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the owner's business
    out = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints must not land among the answers
    av.logging.set_level(None)
    send(out, {"is": "ready"})
    shelf = Shelf()
    try:
        while True:
            request, _ = receive(0)
            answer(shelf, request, out)
    except PipeClosed:
        pass


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
