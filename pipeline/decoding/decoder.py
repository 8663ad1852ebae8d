"""Videos to frames, whatever the videos do. Owns the decode child; lets no video harm its neighbours.

Decoding happens in one persistent child process (child.py) with a memory cap. A child that makes no progress for
`Bounds.deadline_s`, or dies, is replaced, and its video tried once more with the next decoder; then the video is an
error, and the next one is served as if nothing had been.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pipeline.decoding.pipe import PipeClosed, PipeGarbled, PipeSilent, receive, send
from pipeline.decoding.sampling import Sampling
from pipeline.decoding.shots import Begin
from pipeline.errors import VIDEO_ERRORS, DecodeCrashed, DecodeTimeout, VideoError
from pipeline.types import Bounds, ClipFrames, ClipPlan, Decoded, Probe, ResizeRecipe

VIDEOS_PER_CHILD = 200
"""Decoders leak; a child is replaced after so many requests (about 0.2 s each time)."""
START_S = 60.0
_CHILD = (sys.executable, "-m", "pipeline.decoding.child")
_ROOT = str(Path(__file__).resolve().parents[2])

Answer = tuple[dict[str, Any], bytearray]
Fill = Callable[[int, int], tuple[int, int]]
"""For a sparse file (remote.py): see that bytes [start, end) are in it; returns the range around them that is."""


class Decoder:
    """Probes and decodes local video files through a killable child, started at the first call, ended with the block.

    The child dies with the thread that first calls, so call from a thread that lives as long as the Decoder.
    """

    def __init__(self, bounds: Bounds = Bounds(), command: tuple[str, ...] = _CHILD) -> None:  # noqa: B008  # frozen
        self._bounds, self._command = bounds, command
        self._child: subprocess.Popen[bytes] | None = None
        self._served = 0
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the Decoder, outlives children
        self._running: str | None = None  # the decoder the child last said it uses
        self._fill: Fill | None = None  # of the file being asked about, where it is sparse

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child. The Decoder can be used again; it then starts another."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()  # it holds nothing that is not ours already
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()

    def child_pid(self) -> int:
        """The process that decodes, started if need be: for whoever measures it."""
        self._start_if_needed()
        assert self._child is not None
        return self._child.pid

    def probe(self, path: str, sampling: Sampling, fill: Fill | None = None) -> Probe:
        """One look at the video at the absolute local `path`, a sparse file if `fill` is given. Raises a VideoError."""
        answers = self._ask({"do": "probe", "path": path, "sampling": str(sampling)}, fill)
        found = {key: value for key, value in answers[-1][0].items() if key != "is"}
        return Probe(**found | {"target_times_s": tuple(found["target_times_s"])})

    def decode(
        self,
        path: str,
        clips: tuple[ClipPlan, ...],
        model: ResizeRecipe,
        encoder: ResizeRecipe | None,
        avoid: str | None = None,
        fill: Fill | None = None,
    ) -> Decoded:
        """The frames of consecutive clips of one video, resized by each recipe. Raises a VideoError.

        A clip in whose window no new frame appears is left out of the result. `avoid` names a decoder ("pyav",
        "decord") not to use if the other is proven right for the file.
        """
        request = {
            "do": "decode",
            "path": path,
            "clips": [asdict(clip) for clip in clips],
            "model": asdict(model),
            "encoder": asdict(encoder) if encoder else None,
            "avoid": avoid,
        }
        *parts, (done, _) = self._ask(request, fill)
        plans = {clip.clip_index: clip for clip in clips}
        return Decoded(
            clips=tuple(_clip_frames(plans[head["clip_index"]], head, body) for head, body in parts),
            decoder=done["decoder"],
            coverage=done["coverage"],
            bad_packets=done["bad_packets"],
        )

    def cut(
        self, path: str, output: str, start_s: float, end_s: float, copies: bool, fill: Fill | None = None
    ) -> dict[str, Any]:
        """Write the frames of [start_s, end_s) to the file `output` and a suffix: see decoding/ffmpeg/cut.py.

        Returns path, start_s, end_s, n_frames and has_audio of what was written. Raises a VideoError.
        """
        request = {"do": "cut", "path": path, "output": output, "start_s": start_s, "end_s": end_s, "copies": copies}
        return {key: value for key, value in self._ask(request, fill)[-1][0].items() if key != "is"}

    def shots(self, path: str, fill: Fill | None = None) -> tuple[tuple[Begin, ...], int, float]:
        """(where shots begin, number of frames, end of the last) by one look at every frame. Raises a VideoError."""
        done = self._ask({"do": "shots", "path": path}, fill)[-1][0]
        return tuple(Begin(*begin) for begin in done["begins"]), done["n_frames"], done["end_s"]

    def _ask(self, request: dict[str, Any], fill: Fill | None = None) -> list[Answer]:
        """The child's answers; one that dies or hangs is replaced and the video tried once more, otherwise decoded."""
        request |= {"bounds": asdict(self._bounds), "sparse": fill is not None}
        self._fill = fill
        self._running = None
        try:
            return self._ask_once(request)
        except (PipeClosed, PipeSilent, PipeGarbled):
            self.close()
        try:
            return self._ask_once(request | {"avoid": self._running})
        except PipeSilent as error:
            self.close()
            raise DecodeTimeout(f"no frame finished within {self._bounds.deadline_s:g} s, twice") from error
        except (PipeClosed, PipeGarbled) as error:
            raise DecodeCrashed(f"the decode child died on it, twice: {self._ending()}") from error

    def _ask_once(self, request: dict[str, Any]) -> list[Answer]:
        stdin, stdout = self._pipes()
        send(stdin, request)
        answers: list[Answer] = []
        while True:
            head, body = receive(stdout, self._bounds.deadline_s)
            kind = head.get("is")
            if kind == "error" and head.get("class") in VIDEO_ERRORS:
                raise VIDEO_ERRORS[head["class"]](head["message"])
            if kind == "beat":
                self._running = head.get("decoder", self._running)
                continue
            if kind == "need":
                self._see_to(head, stdin)
                continue
            if kind not in ("clip", "probe", "done"):
                raise PipeGarbled(f"an answer of kind {kind!r}")
            answers.append((head, body))
            if kind != "clip":
                return answers

    def _see_to(self, head: dict[str, Any], stdin: int) -> None:
        """The child is about to read a part of a sparse file: fill it in. What storage refuses ends the child too."""
        start, end = head.get("start"), head.get("end")
        if self._fill is None or not isinstance(start, int) or not isinstance(end, int):
            raise PipeGarbled("it needs what it was not given")
        try:
            here = self._fill(start, end)
        except VideoError:
            self.close()
            raise
        send(stdin, {"here": here})

    def _pipes(self) -> tuple[int, int]:
        """Descriptors to ask and to be answered on, of a child that is ready."""
        if self._served >= VIDEOS_PER_CHILD:
            self.close()
        self._start_if_needed()
        self._served += 1
        assert self._child is not None
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        return self._child.stdin.fileno(), self._child.stdout.fileno()

    def _start_if_needed(self) -> None:
        if self._child is None:
            self._child = self._start()
            self._served = 0

    def _start(self) -> subprocess.Popen[bytes]:
        self._stderr.truncate(0)
        env = dict(os.environ)
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (_ROOT, env.get("PYTHONPATH"))))
        # One thread and one malloc arena: address space is capped, and the work is one core's.
        env |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
        child = subprocess.Popen(
            [*self._command, str(os.getpid()), str(self._bounds.memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            bufsize=0,
            env=env,
            cwd="/",
        )
        assert child.stdout is not None
        try:
            receive(child.stdout.fileno(), START_S)
        except (PipeClosed, PipeSilent, PipeGarbled) as error:
            child.kill()
            raise RuntimeError(f"the decode child does not start: {self._last_words()}") from error
        return child

    def _ending(self) -> str:
        """How the child ended, in words; and it is cleared away."""
        code = None
        if self._child is not None:
            with suppress(subprocess.TimeoutExpired):
                code = self._child.wait(1.0)
        self.close()
        return f"signal {-code}" if code is not None and code < 0 else self._last_words()

    def _last_words(self) -> str:
        """The last line the child printed: of a Python error, the error."""
        size = os.fstat(self._stderr.fileno()).st_size
        tail = os.pread(self._stderr.fileno(), 1000, max(0, size - 1000)).decode("utf-8", "replace")
        return (tail.strip().splitlines() or ["it said nothing"])[-1]


def _clip_frames(plan: ClipPlan, head: dict[str, Any], body: bytearray) -> ClipFrames:
    n = len(head["pts_s"])
    data = np.frombuffer(body, dtype=np.uint8)
    size = n * int(np.prod(head["shape"]))
    frames, at = data[:size].reshape(n, *head["shape"]), size  # (n, H, W, 3)
    encoder_frames = None
    if head["encoder_shape"]:
        size = n * int(np.prod(head["encoder_shape"]))
        encoder_frames, at = data[at : at + size].reshape(n, *head["encoder_shape"]), at + size  # (n, He, We, 3)
    thumbnails = []
    for length in head["thumbnail_bytes"]:
        thumbnails.append(bytes(body[at : at + length]))
        at += length
    return ClipFrames(
        plan.clip_index, plan.start_s, plan.end_s, tuple(head["pts_s"]), frames, encoder_frames, tuple(thumbnails)
    )
