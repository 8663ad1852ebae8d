"""The real decode child, but for one fault: run as `python -m tests.pipeline.decoding.faulty_child FAULT ...`.

A fault strikes where a frame has been decoded from a file whose name contains "poison", as a decoder's own bug would.
"""

import ctypes
import os
import sys
from typing import Any

import numpy as np

from pipeline.decoding import child as decode_child
from pipeline.decoding.ffmpeg import item
from pipeline.decoding.ffmpeg.sparse import SparsePass
from pipeline.decoding.ffmpeg.video import Video


def hang_with_the_gil() -> None:
    ctypes.PyDLL(None).sleep(600)  # PyDLL keeps the GIL, as decord's loops do


def segfault() -> None:
    ctypes.string_at(0)


def memory_bomb() -> None:
    hoard = []
    while True:
        hoard.append(np.ones(64 << 20, dtype=np.uint8))


def abort_like_an_allocator() -> None:
    os.abort()


def garble() -> None:
    os.write(3, b"\xff" * 4096)
    os._exit(0)


FAULTS = {
    "hang": hang_with_the_gil,
    "segfault": segfault,
    "bomb": memory_bomb,
    "abort": abort_like_an_allocator,
    "garble": garble,
}


class FaultyVideo(Video):
    """Strikes when PyAV has decoded a frame."""

    def decode(self, packet: Any) -> Any:
        frames = super().decode(packet)
        if "poison" in self.path and frames:
            FAULTS[sys.argv[1]]()
        return frames


class FaultySparsePass(SparsePass):
    """Strikes when PyAV's pass begins; decord's way is whole."""

    def run(self) -> dict[int, int]:
        segfault()
        return {}


if __name__ == "__main__":
    if sys.argv[1] == "segfault-sparse":
        item.SparsePass = FaultySparsePass  # type: ignore[misc]  # a faulty double in its place
    else:
        decode_child.Video = FaultyVideo  # type: ignore[misc]  # a faulty double in its place
    decode_child.main(int(sys.argv[2]), int(sys.argv[3]))
