"""What people run. Before anything else a job's process is made to give back memory it has freed.

Arrow's pool and glibc's arenas, one a thread, keep it for speed: the driver of a first night over 100,000 videos grew
to twice its size that way. Workers that a job starts on its own machine inherit Arrow's part.
"""

import ctypes
import os

_M_ARENA_MAX = -8  # of glibc's mallopt; other C libraries have none

os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # heeded when pyarrow is first imported
if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
    mallopt(_M_ARENA_MAX, 1)
