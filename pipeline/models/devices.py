"""What torch would run on here, and whether a checkpoint fits."""

from pathlib import Path

import torch

from pipeline.errors import UsageError
from pipeline.models.checkpoints import ModelFiles

GIB = 2**30


def describe_devices() -> str:
    """The GPUs torch sees with their memory, or that it sees none."""
    if not torch.cuda.is_available():
        return f"no GPU seen by torch; the models run on {torch.get_num_threads()} CPU threads"
    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return ", ".join(f"{gpu.name} ({gpu.total_memory / GIB:.0f} GiB)" for gpu in found)


def choose_device(asked: str) -> tuple[str, torch.dtype]:
    """Where models run and in what, for `auto`, `cpu` or `cuda`."""
    device = ("cuda" if torch.cuda.is_available() else "cpu") if asked == "auto" else asked
    return device, torch.bfloat16 if device == "cuda" else torch.float32


def free_bytes(device: str) -> int:
    """Memory that nothing uses: the GPU's, or this machine's within the limit of its container."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").is_file() else []
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 2**62)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and (bound := limit.read_text().strip()).isdigit():
        free = min(free, int(bound) - int(used.read_text()))
    return free


def refuse_too_large(files: ModelFiles, device: str, dtype: torch.dtype) -> None:
    """UsageError, before anything is read, for weights that the device's free memory does not hold."""
    needed, free = files.weights().n_values * dtype.itemsize, free_bytes(device)
    if needed > free:
        raise UsageError(
            f"{files.what}: its weights take {needed / GIB:.1f} GiB in {str(dtype).removeprefix('torch.')}, but "
            f"{max(free, 0) / GIB:.1f} GiB are free on {device}; take a smaller model or a larger machine"
        )
