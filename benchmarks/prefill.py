"""Prefill of one clip: pruned against unpruned against transformers itself, in one run.

    python -m benchmarks.prefill --rounds 5

Random weights of the given shape, 32 frames of 196 tokens, 150 text tokens, p = 1. Every round runs each contender
once, one after the other, and ratios are medians over rounds of the round's own ratio, of wall time or of CPU seconds
over all threads (`--clock cpu`: for a machine that others use too; `clock` in the result says which).
- pruned: 32 segments of one frame, where local debiasing has nothing to remove; pruned_eight_segments: eight of four.
- transformers: the model's own forward, sdpa, same dtype and threads, `logits_to_keep=1`.
- selection: scoring and selecting of every cut, timed alone on tensors of the pruned run's shapes.
- memory: peak above the loaded model, each contender in a fresh process.
Ends with one JSON line.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import adatp
from adatp.engine import clip_of, layout_of
from adatp.methods import resolve
from adatp.prefill import embed, prefill
from adatp.scores import attention_received
from benchmarks.machine import RESULTS, describe
from benchmarks.models import SHAPES, prompt_of, random_llm, random_visual

FRAMES, TEXT_TOKENS = 32, 150
ONE_FRAME_EACH, EIGHT_SEGMENTS = (1,) * FRAMES, (4,) * 8


def clip_request(model: adatp.VideoLLM, method: str, segments: tuple[int, ...]) -> adatp.Request:
    visual = random_visual(model, FRAMES, seed=1)
    return adatp.Request("clip", visual, prompt_of(model, TEXT_TOKENS), segments, method=method)


def ours(model: adatp.VideoLLM, method: str, segments: tuple[int, ...]) -> Callable[[], tuple[int, ...]]:
    """A prefill of the engine; returns the visual tokens of each layer."""
    request = clip_request(model, method, segments)
    clip = clip_of(request, model)
    layout = layout_of(request, clip, model)

    def go() -> tuple[int, ...]:
        done = prefill(model, [embed(model, layout, clip, resolve(request.method).plan(clip))])[0]
        return tuple(len(origin) for origin in done.origins)

    return go


def theirs(model: adatp.VideoLLM) -> Callable[[], tuple[int, ...]]:
    """transformers' own prefill of the same embeddings."""
    request = clip_request(model, "none", ONE_FRAME_EACH)
    clip = clip_of(request, model)
    embeddings = embed(model, layout_of(request, clip, model), clip, resolve("none").plan(clip)).embeddings[None]

    @torch.inference_mode()
    def go() -> tuple[int, ...]:
        model.hf(inputs_embeds=embeddings, use_cache=True, logits_to_keep=1)
        return ()

    return go


def clocked(model: adatp.VideoLLM, go: Callable[[], object]) -> tuple[float, float]:
    """(wall, CPU) seconds of one call; CPU over all threads."""
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    go()
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


@torch.inference_mode()
def selection_seconds(model: adatp.VideoLLM, counts: tuple[int, ...], repeats: int) -> tuple[float, float]:
    """(wall, CPU) seconds of all cuts' scoring and selection, on random tensors of their shapes; medians."""
    request = clip_request(model, "adatp", ONE_FRAME_EACH)
    plan = resolve("adatp").plan(clip_of(request, model))
    ids = model.prompt.ids(request.prompt)
    header = ids.index(model.prompt.video_token_id)
    rows = len(ids) - header - 1
    shape = model.llm_shape
    head = shape.query_width // model.hf.config.text_config.num_attention_heads
    total = [0.0, 0.0]
    for cut in plan.cuts:
        n_alive = counts[cut.layer - 1]
        length = n_alive + TEXT_TOKENS
        query = torch.randn(rows, shape.query_width // head, head, device=model.device).to(model.dtype)
        key = torch.randn(length, shape.key_width // head, head, device=model.device).to(model.dtype)
        origin = torch.randperm(FRAMES * model.tokens_per_frame, device=model.device)[:n_alive].sort().values

        def one(
            cut: adatp.plan.Cut = cut,
            query: torch.Tensor = query,
            key: torch.Tensor = key,
            origin: torch.Tensor = origin,
            n_alive: int = n_alive,
        ) -> None:
            cut.select(
                origin,
                attention_received(query, key, torch.arange(header, header + n_alive, device=model.device), head**-0.5),
            )

        one()
        times = [clocked(model, one) for _ in range(repeats)]
        total = [sum_so_far + statistics.median(t[i] for t in times) for i, sum_so_far in enumerate(total)]
    return total[0], total[1]


def peak_bytes(contender: str, shape: str, device: str) -> int:
    """Peak memory of one prefill above the loaded model, in this fresh process."""
    model = random_llm(*SHAPES[shape], device=device)
    go = contenders(model)[contender]
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        go()
        return torch.cuda.max_memory_allocated() - before
    before = _resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    go()
    return _resident_bytes("VmHWM") - before


def _resident_bytes(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise RuntimeError(f"expected {field} in /proc/self/status: memory on a CPU is measured on Linux")
    return int(found[1]) * 1024


def contenders(model: adatp.VideoLLM) -> dict[str, Callable[[], tuple[int, ...]]]:
    return {
        "unpruned": ours(model, "none", ONE_FRAME_EACH),
        "pruned": ours(model, "adatp", ONE_FRAME_EACH),
        "transformers": theirs(model),
        "pruned_eight_segments": ours(model, "adatp", EIGHT_SEGMENTS),
    }


def measure_memory(shape: str, device: str) -> dict[str, int]:
    peaks = {}
    for name in ("unpruned", "pruned", "transformers"):
        command = [sys.executable, "-m", "benchmarks.prefill", "--peak-of", name, "--shape", shape, "--device", device]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        peaks[name] = int(out.strip().splitlines()[-1])
    return peaks


def measure_time(
    model: adatp.VideoLLM, rounds: int
) -> tuple[dict[str, list[tuple[float, float]]], dict[str, tuple[int, ...]]]:
    """(wall, CPU) seconds of every round, and the visual tokens of each layer."""
    going = contenders(model)
    counts = {name: going[name]() for name in ("pruned", "pruned_eight_segments")}  # warm-up: everybody's kernels
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in going}
    for _ in range(rounds):
        for name, go in going.items():
            seconds[name].append(clocked(model, go))
        print("  ".join(f"{n} {t[-1][0]:.2f} s ({t[-1][1]:.2f} CPU)" for n, t in seconds.items()), flush=True)
    return seconds, counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="ov-0.5b")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="what the ratios are of; CPU seconds of all threads are the fairer clock on a machine others use too",
    )
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/prefill_<shape>_<device>.json")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak_of:
        print(peak_bytes(args.peak_of, args.shape, args.device))
        return
    machine = describe()  # before the run: the commit that is measured
    peaks = measure_memory(args.shape, args.device)
    print("peak above the loaded model: " + "  ".join(f"{k} {v / 2**20:.0f} MiB" for k, v in peaks.items()), flush=True)
    model = random_llm(*SHAPES[args.shape], device=args.device)
    seconds, counts = measure_time(model, args.rounds)
    selection = selection_seconds(model, counts["pruned"], repeats=5)
    clock = 0 if args.clock == "wall" else 1

    def ratio(a: str, b: str) -> float:
        return statistics.median(x[clock] / y[clock] for x, y in zip(seconds[a], seconds[b], strict=True))

    result = {
        "benchmark": "prefill",
        "shape": args.shape,
        "dtype": "bfloat16",
        "frames": FRAMES,
        "text_tokens": TEXT_TOKENS,
        "p": 1.0,
        "rounds": args.rounds,
        "pruned_over_unpruned": round(ratio("pruned", "unpruned"), 4),
        "pruned_eight_segments_over_unpruned": round(ratio("pruned_eight_segments", "unpruned"), 4),
        "unpruned_over_transformers": round(ratio("unpruned", "transformers"), 4),
        "selection_over_unpruned": round(
            selection[clock] / statistics.median(t[clock] for t in seconds["unpruned"]), 5
        ),
        "peak_memory_over_unpruned": round(peaks["pruned"] / peaks["unpruned"], 4),
        "unpruned_peak_memory_over_transformers": round(peaks["unpruned"] / peaks["transformers"], 4),
        "clock": args.clock,
        "wall_seconds": {name: [round(wall, 3) for wall, _ in times] for name, times in seconds.items()},
        "cpu_seconds": {name: [round(cpu, 3) for _, cpu in times] for name, times in seconds.items()},
        "selection_seconds": [round(t, 4) for t in selection],
        "visual_tokens_per_layer": {name: list(c) for name, c in counts.items()},
        **machine,
    }
    if args.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"prefill_{args.shape}_{args.device}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
