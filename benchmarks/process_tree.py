"""CPU seconds and peak memory of a process and all it starts, also of those that end meanwhile."""

import contextlib
import os
import threading
import time
from collections import defaultdict
from types import TracebackType
from typing import Self

import psutil


class ProcessTree:
    """Samples this process and its descendants every `every_s` seconds for as long as the `with` block runs.

    `cpu_s` sums user and system time spent inside the block, without the sampler's own; a process that ends loses at
    most the last sample. `peak_mb` sums proportional set sizes (shared pages counted once), the highest sample; those
    are dear to read, so only every tenth sample does.
    """

    def __init__(self, every_s: float = 0.2) -> None:
        self._every_s = every_s
        self._samples = 0
        self._sampler_s = 0.0
        self._first: dict[tuple[int, float], float] = {}
        self._last: dict[tuple[int, float], float] = {}
        self._names: dict[tuple[int, float], str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak_mb = 0.0
        self.peak_worker_mb = 0.0

    @property
    def cpu_s(self) -> float:
        return sum(last - self._first[key] for key, last in self._last.items()) - self._sampler_s

    def cpu_s_by_name(self) -> dict[str, float]:
        """CPU seconds by what the processes were last called; the sampler's stand with this process."""
        found: defaultdict[str, float] = defaultdict(float)
        for key, last in self._last.items():
            found[self._names.get(key, "ended at once")] += last - self._first[key]
        return dict(found)

    def __enter__(self) -> Self:
        self._sample(starting=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._stop.wait(self._every_s):
            self._sample()
        self._sampler_s = time.thread_time()

    def _sample(self, starting: bool = False) -> None:
        me = psutil.Process()
        total_mb = 0.0
        with_memory = self._samples % 10 == 0
        self._samples += 1
        for process in [me, *me.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                key = (process.pid, process.create_time())
                spent = process.cpu_times()
                cpu_s = spent.user + spent.system
                # what ran before the block does not count; what starts inside it counts from its birth
                self._first.setdefault(key, cpu_s if starting else 0.0)
                self._last[key] = cpu_s
                if (name := _name(process)) is not None:
                    self._names[key] = "this process" if process.pid == me.pid else name
                if not with_memory:
                    continue
                mb = process.memory_full_info().pss / 1e6
                total_mb += mb
                if process.pid != os.getpid():
                    self.peak_worker_mb = max(self.peak_worker_mb, mb)
        self.peak_mb = max(self.peak_mb, total_mb)


def _name(process: psutil.Process) -> str | None:
    """A Python process goes by the module it runs, any other by its own name; what has ended has none."""
    words: list[str] = process.cmdline()
    if not words:
        return None
    name: str = process.name()
    return words[words.index("-m") + 1] if "-m" in words else name
