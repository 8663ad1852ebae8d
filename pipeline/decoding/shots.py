"""Hard cuts, from every frame at 48 x 27: pure NumPy, one frame after the other, in constant memory.

A cut changes most of the picture in one step and nothing much around it. The picture is 9 x 16 blocks; a block jumps
when it changes by at least `LEAST` of 255 and by `TIMES` as much as it does on average in the `AROUND` steps before and
after. Where at least `SHARE` of the blocks jump, and no step near it changes the picture more, a shot begins. A pan
moves every step, an overlay only some blocks, and neither is taken for a cut. Figures on real clips, beside those of
TransNetV2 and PySceneDetect: benchmarks/shots.py.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SIZE = (48, 27)
"""Width and height of what is looked at."""
ROWS, COLUMNS = 9, 16
LEAST = 4.0
TIMES = 4.0
SHARE = 0.5
AROUND = 6
SHORTEST = 2  # frames: the first and last of a video make no shot of their own

Picture = npt.NDArray[np.uint8]  # (27, 48, 3)


@dataclass(frozen=True)
class Begin:
    """Where a shot begins: 0-based frame, its time, and the share of blocks that jumped (1 for the video's first)."""

    frame: int
    start_s: float
    score: float


class ShotDetector:
    """Feed it every frame in order; `begins` has what is certain so far, and all of it after `finish`."""

    def __init__(self) -> None:
        self.begins: list[Begin] = []
        self.n_frames = 0
        self._last: npt.NDArray[np.float32] | None = None
        self._steps: deque[npt.NDArray[np.float32]] = deque(maxlen=2 * AROUND + 1)  # change of each block, (144,)
        self._times: deque[float] = deque(maxlen=2 * AROUND + 1)  # of the frame after each step
        self._first_step = 0  # number of _steps[0]; step i leads from frame i to frame i + 1
        self._next = 0  # step to decide next

    def push(self, time_s: float, picture: Picture) -> None:
        blocks = picture.reshape(ROWS, SIZE[1] // ROWS, COLUMNS, SIZE[0] // COLUMNS, 3).mean((1, 3), dtype=np.float32)
        if self._last is None:
            self.begins.append(Begin(0, time_s, 1.0))
        else:
            if len(self._steps) == self._steps.maxlen:
                self._first_step += 1
            self._steps.append(np.abs(blocks - self._last).mean(-1).reshape(-1))
            self._times.append(time_s)
            if self.n_frames - 1 - self._next >= AROUND:
                self._decide()
        self._last = blocks
        self.n_frames += 1

    def finish(self) -> None:
        while self._next < self.n_frames - 1:
            self._decide()

    def _decide(self) -> None:
        step, self._next = self._next, self._next + 1
        if step + 1 < SHORTEST or self.n_frames - (step + 1) < SHORTEST:
            return
        low, high = max(self._first_step, step - AROUND), step + AROUND + 1
        near = [self._steps[i - self._first_step] for i in range(low, min(high, self._first_step + len(self._steps)))]
        mine = self._steps[step - self._first_step]
        others = [change for change in near if change is not mine]
        if not others or mine.mean() < max(float(change.mean()) for change in others):
            return
        jumped = (mine >= LEAST) & (mine >= TIMES * np.mean(others, axis=0))
        share = float(jumped.mean())
        if share >= SHARE:
            self.begins.append(Begin(step + 1, self._times[step - self._first_step], share))
