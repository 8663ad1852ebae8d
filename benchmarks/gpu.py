"""Everything that needs a GPU, on a machine with nothing but one: a single script, under ten minutes, one JSON line.

    python -m benchmarks.gpu                      # the 7B shape in bfloat16 on the GPU
    python -m benchmarks.gpu --shape tiny --device cpu --seconds 30      # only to see that the script runs

Random weights of the published shapes: speed depends on shapes alone. First whether the device's own paths are right
(packed attention, a batch of ragged clips, pruning), against the same model in fp32 on the CPU; then, in this order and
as far as --seconds lasts: prefill and time to first token with and without vision, pruned and unpruned and by
transformers; memory; sending frames as bytes; captions per second by batch size. Ratios are medians over rounds of each
round's own. `missing` names what the time did not suffice for.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import SiglipVisionConfig, SiglipVisionModel

import adatp
from benchmarks.captions import one_batch_size
from benchmarks.machine import RESULTS, describe
from benchmarks.models import SHAPES, prompt_of, random_llm, random_visual
from benchmarks.prefill import EIGHT_SEGMENTS, FRAMES, clocked, contenders, selection_seconds
from pipeline.decoding.resize import Normalisation
from pipeline.models.pixels import DeviceFrames

HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
TINY = (48, 4, 6, 2, 64)
SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 26, "num_attention_heads": 16}
BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
SMALL = {"hidden_size": 36, "intermediate_size": 52, "num_hidden_layers": 1, "num_attention_heads": 3}
CLIP_SECONDS = 32  # of video a clip of 32 frames stands for


@dataclass(frozen=True)
class Bench:
    """The model under test, the default encoder's vision tower beside it, and when time is up."""

    model: adatp.VideoLLM
    encoder: Any
    deadline: float

    @property
    def device(self) -> torch.device:
        return self.model.device

    def has_time(self) -> bool:
        return time.monotonic() < self.deadline


def open_bench(shape: str, device: str, seconds: float) -> Bench:
    is_tiny = shape == "tiny"
    tower = SiglipVisionConfig(**(SMALL if is_tiny else SO400M), image_size=384, patch_size=14, vision_use_head=False)
    sizes = TINY if is_tiny else SHAPES[shape]
    model = random_llm(*sizes, vocabulary=512 if is_tiny else 152_000, tower=tower, device=device)
    config = SiglipVisionConfig(**(SMALL if is_tiny else BASE), image_size=224, patch_size=16)
    encoder = SiglipVisionModel(config).to(device, torch.bfloat16).eval().requires_grad_(False)
    return Bench(model, encoder, time.monotonic() + seconds)


@torch.inference_mode()
def check(device: str) -> dict[str, Any]:
    """The device's paths against fp32 on the CPU, on a small model: largest differences, and whether all is well."""
    small = SiglipVisionConfig(**SMALL, image_size=384, patch_size=14, vision_use_head=False)
    kinds = {
        "cpu-float32": ("cpu", torch.float32),
        "device-float32": (device, torch.float32),
        "device-bfloat16": (device, torch.bfloat16),
    }
    texts: dict[str, list[tuple[int, ...]]] = {}
    logits: dict[str, torch.Tensor] = {}
    for name, (where, dtype) in kinds.items():
        reference = random_llm(*TINY, vocabulary=512, tower=small, dtype=torch.float32)
        model = adatp.VideoLLM(reference.family, reference.prompt, reference.stop_token_ids)
        model.hf.to(where, dtype)
        requests = []
        for i, lengths in enumerate(((4,), (2, 3), (1, 1, 1))):  # ragged on purpose
            visual = random_visual(model, sum(lengths), seed=i)
            prompt = prompt_of(model, 20 + i)
            requests.append(adatp.Request(str(i), visual, prompt, lengths, method="adatp", max_new_tokens=4))
        together = adatp.Engine(model, prefill_tokens=100_000).run(requests)
        alone = [adatp.Engine(model).run([request])[request.key] for request in requests]
        texts[f"{name} packed"] = [together[request.key].token_ids for request in requests]
        texts[f"{name} alone"] = [result.token_ids for result in alone]
        whole = random_visual(model, 4, seed=9)
        tokens = model.decoder(inputs_embeds=whole.tokens.flatten(0, 1)[None]).last_hidden_state[0, -1]
        logits[name] = tokens.float().cpu()
    names = list(logits)
    cosine = torch.nn.functional.cosine_similarity
    near = {name: float(cosine(logits[name], logits[names[0]], dim=0)) for name in names[1:]}
    exact = [text for name, text in texts.items() if "-float32" in name]
    packed = texts[f"{names[-1]} packed"], texts[f"{names[-1]} alone"]
    return {
        "fp32_tokens_equal_cpu": all(text == exact[0] for text in exact),
        "bf16_packed_equals_alone": packed[0] == packed[1],
        "cosine_to_cpu_fp32": {name: round(value, 5) for name, value in near.items()},
        "is_well": all(text == exact[0] for text in exact) and min(near.values()) > 0.98,
    }


def frames(size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (FRAMES, size, size, 3), dtype=np.uint8)


def medians(bench: Bench, going: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Wall seconds of each, medians over interleaved rounds, after one round of warming up."""
    times: dict[str, list[float]] = {name: [] for name in going}
    for round_ in range(rounds + 1):
        for name, go in going.items():
            seconds = clocked(bench.model, go)[0]
            if round_:
                times[name].append(seconds)
    return {name: statistics.median(found) for name, found in times.items()}


def first_token(bench: Bench, rounds: int) -> dict[str, Any]:
    """Prefill alone, and with everything a clip needs before its first token."""
    model, prefills = bench.model, contenders(bench.model)
    side = model.frame_size[0]

    @torch.inference_mode()
    def segment() -> None:
        bench.encoder(pixel_values=DeviceFrames(frames(224), bench.device).normalised(HALF).to(torch.bfloat16))

    def see(n: int) -> None:
        model.encode(DeviceFrames(frames(side)[:n], bench.device).normalised(HALF))

    seconds = medians(
        bench,
        {
            **prefills,
            "vision": lambda: see(FRAMES),
            "vision_representative": lambda: see(len(EIGHT_SEGMENTS)),
            "encoder": segment,
        },
        rounds,
    )
    unpruned = seconds["vision"] + seconds["unpruned"]
    pruned = seconds["encoder"] + seconds["vision"] + seconds["pruned"]
    fewest = seconds["encoder"] + seconds["vision_representative"] + seconds["pruned_eight_segments"]
    return {
        "seconds": {name: round(value, 5) for name, value in seconds.items()},
        "first_token_speedup": round(unpruned / pruned, 3),
        "first_token_speedup_vision_cached": round(seconds["unpruned"] / seconds["pruned"], 3),
        "first_token_speedup_repframes_eight_segments": round(unpruned / fewest, 3),
        "unpruned_over_transformers": round(seconds["unpruned"] / seconds["transformers"], 4),
        "selection_over_unpruned": round(
            selection_seconds(model, prefills["pruned"](), repeats=3)[0] / seconds["unpruned"], 5
        ),
    }


def memory(bench: Bench) -> dict[str, Any]:
    """Peak of one prefill above the loaded model; on a GPU alone, where it can be told in one process."""
    if bench.device.type != "cuda":
        return {"peak_memory_over_unpruned": None}
    peaks = {}
    for name, go in contenders(bench.model).items():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        go()
        torch.cuda.synchronize()
        peaks[name] = torch.cuda.max_memory_allocated() - before
    return {
        "peak_mib": {name: round(peak / 2**20) for name, peak in peaks.items()},
        "peak_memory_over_unpruned": round(peaks["pruned"] / peaks["unpruned"], 4),
    }


def sending(bench: Bench, rounds: int) -> dict[str, Any]:
    """32 frames as bytes normalised on the device, against normalised on the CPU and sent as floats."""
    pixels = frames(bench.model.frame_size[0])
    seconds = medians(
        bench,
        {
            "bytes": lambda: DeviceFrames(pixels, bench.device).normalised(HALF),
            "floats": lambda: DeviceFrames(pixels, "cpu").normalised(HALF).to(bench.device),
        },
        rounds,
    )
    return {"sending_ms": {name: round(1000 * value, 2) for name, value in seconds.items()}}


def throughput(bench: Bench, batches: list[int], first: dict[str, Any]) -> dict[str, Any]:
    """Captions per second by batch size, until time is up; and video-hours a day at the best of them."""
    rows: list[dict[str, float]] = []
    for n in batches:
        if not bench.has_time():
            break
        rows.append(one_batch_size(bench.model, n))
        print(rows[-1], flush=True)
    result: dict[str, Any] = {"captions": rows}
    if rows:
        best = max(row["pruned_per_s"] for row in rows)  # clips of 8 frames: prefill and vision of 32 come on top
        seconds = first["seconds"]
        clip = 1 / best + seconds["encoder"] + seconds["vision"] + seconds["pruned"]
        result["video_hours_per_day"] = round(86_400 / clip * CLIP_SECONDS / 3600)
    return result


def run(shape: str, device: str, seconds: float, rounds: int, batches: list[int]) -> dict[str, Any]:
    machine = describe()  # before the run: the commit that is measured
    result: dict[str, Any] = {"benchmark": "gpu", "shape": shape, "device": device, "dtype": "bfloat16"}
    begun = time.monotonic()
    result["check"] = check(device)
    print(result["check"], flush=True)
    bench = open_bench(shape, device, seconds - (time.monotonic() - begun))
    first = first_token(bench, rounds)
    print(first, flush=True)
    result |= first
    parts: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        ("memory", lambda: memory(bench)),
        ("sending", lambda: sending(bench, rounds)),
        ("captions", lambda: throughput(bench, batches, first)),
    ]
    missing = []
    for name, part in parts:
        if not bench.has_time():
            missing.append(name)
            continue
        result |= part()
    missing += [f"captions at {n}" for n in batches[len(result.get("captions", ())) :]]
    return result | {"missing": missing, "wall_seconds": round(time.monotonic() - begun, 1), **machine}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=[*SHAPES, "tiny"], default="ov-7b")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to see that the script runs")
    parser.add_argument("--seconds", type=float, default=540.0, help="after this long nothing new is begun")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/gpu_<shape>.json")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU; expected one, or --device cpu --shape tiny")
    result = run(args.shape, args.device, args.seconds, args.rounds, args.batches)
    if args.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"gpu_{args.shape}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return 0 if result["check"]["is_well"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
