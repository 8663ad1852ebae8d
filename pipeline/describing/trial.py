"""Both models loaded as the job loads them, and made to work once: what jobs.doctor does on a worker."""

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from safetensors import SafetensorError

import adatp
from pipeline.config import ModelIdentity
from pipeline.decoding.resize import resize
from pipeline.errors import UsageError
from pipeline.models.checkpoints import ModelFiles, open_model
from pipeline.models.devices import GIB, choose_device, refuse_too_large
from pipeline.models.encoder import Encoder
from pipeline.models.pixels import DeviceFrames

N_FRAMES, N_TOKENS = 8, 8


@dataclass
class Finding:
    """One line about one model: what was found, and whether that is well."""

    role: str
    said: str
    is_well: bool


@dataclass
class _Watch:
    device: str
    parts: list[str] = field(default_factory=list)

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.parts.append(f"{what} {time.perf_counter() - started:.2f} s")

    def memory(self) -> str:
        if self.device == "cuda":
            return f"GPU memory {torch.cuda.max_memory_allocated() / GIB:.2f} GiB at most"
        return f"process memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB:.2f} GiB at most"


def try_models(encoder: ModelIdentity, model: ModelIdentity | None, device: str) -> list[Finding]:
    """A line for the encoder and one for the Video LLM; a fault of one does not hide the other."""
    where, dtype = choose_device(device)
    found = [_finding("encoder", encoder, where, dtype, _encode)]
    if model is not None:
        found.append(_finding("model", model, where, dtype, _describe))
    return found


def _finding(
    role: str,
    identity: ModelIdentity,
    device: str,
    dtype: torch.dtype,
    work: Callable[[ModelFiles, str, torch.dtype, _Watch], str],
) -> Finding:
    watch = _Watch(device)
    try:
        files = open_model(identity, role)
        refuse_too_large(files, device, dtype)
        result = work(files, device, dtype, watch)
    except UsageError as error:
        return Finding(role, str(error), False)
    except torch.OutOfMemoryError as error:
        return Finding(role, f"--{role} {identity.name}: out of GPU memory: {str(error).splitlines()[0]}", False)
    except (
        adatp.CheckpointError,
        SafetensorError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        ImportError,
        RuntimeError,
    ) as error:  # what transformers, tokenizers and safetensors raise over files they cannot make sense of
        return Finding(role, f"--{role} {identity.name}: {' '.join(str(error).split())}", False)
    name = f"{identity.id} on {device} in {str(dtype).removeprefix('torch.')}"
    return Finding(role, f"{name}: {', '.join(watch.parts)}; {result}; {watch.memory()}", True)


def _encode(files: ModelFiles, device: str, dtype: torch.dtype, watch: _Watch) -> str:
    with watch.of("load"):
        encoder = Encoder(files.path, device, dtype)
    with watch.of("a frame"):
        frame = encoder.images(_frames(files, device, 1).normalised(files.normalisation))
    with watch.of("a text"):
        text = encoder.texts(["a photo of a red circle"])
    if not bool(torch.isfinite(frame).all() and torch.isfinite(text).all()):
        raise ValueError("it gives NaN or infinity for a plain frame or text")
    return f"{encoder.dim} numbers a vector"


def _describe(files: ModelFiles, device: str, dtype: torch.dtype, watch: _Watch) -> str:
    with watch.of("load"):
        model = adatp.load(files.path, device=device, dtype=dtype)
    times_s = [float(second) for second in range(N_FRAMES)]
    with watch.of(f"{N_FRAMES} frames"):
        visual = model.encode(_frames(files, device, N_FRAMES).normalised(files.normalisation), times_s)
    if not bool(torch.isfinite(visual.tokens).all()):
        raise ValueError("its vision tower gives NaN or infinity for a plain frame")
    counts = {}
    for name, method in (("unpruned", "none"), ("pruned", "adatp")):
        request = adatp.Request("trial", visual, "Describe this video.", (5, 3), None, method, max_new_tokens=N_TOKENS)
        with watch.of(f"{N_TOKENS} tokens {name}"):
            result = adatp.Engine(model).run([request])["trial"]
        counts[name] = round(sum(result.visual_tokens_per_layer) / len(result.visual_tokens_per_layer))
    return f"{counts['pruned']} of {counts['unpruned']} visual tokens a layer when pruned"


def _frames(files: ModelFiles, device: str, n: int) -> DeviceFrames:
    """A picture that changes from frame to frame, resized as the model wants it."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (360, 640, 3), dtype=np.uint8) for _ in range(n)]
    return DeviceFrames(np.stack([resize(picture, files.identity.resize) for picture in pictures]), device)
