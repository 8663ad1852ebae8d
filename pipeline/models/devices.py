"""What torch would run on here."""

import torch


def describe_devices() -> str:
    """The GPUs torch sees with their memory, or that it sees none."""
    if not torch.cuda.is_available():
        return f"no GPU seen by torch; the models run on {torch.get_num_threads()} CPU threads"
    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return ", ".join(f"{gpu.name} ({gpu.total_memory / 2**30:.0f} GiB)" for gpu in found)
