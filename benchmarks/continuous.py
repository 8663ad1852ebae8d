"""Continuous batching against static batches: `python -m benchmarks.continuous [--shape ov-0.5b] [--clips 64]`.

Random weights of the given shape, 8 frames of 196 tokens in three segments, vision precomputed, p = 1, answers of 8 to
64 new tokens drawn evenly. The same clips go through one engine with 32 places, and through static batches of 8 and of
32, which end when their longest answer does. Contenders take turns; ratios are of CPU seconds over all threads, because
other work may use the machine too. Ends with one JSON line.
"""

import argparse
import json
import random
import sys
import time
from dataclasses import replace

import torch

import adatp
from benchmarks.captions import clips
from benchmarks.machine import RESULTS, describe
from benchmarks.models import SHAPES, random_llm

SMALL = (256, 8, 4, 2, 1024)
"""Near the builtin model: what a test machine can do in a minute."""


def requests(model: adatp.VideoLLM, n: int) -> list[adatp.Request]:
    rng = random.Random(0)
    return [replace(request, max_new_tokens=rng.randint(8, 64)) for request in clips(model, n, "adatp")]


def cpu_s(model: adatp.VideoLLM, asked: list[adatp.Request], places: int, is_static: bool) -> float:
    began = time.process_time()
    parts = [asked[i : i + places] for i in range(0, len(asked), places)] if is_static else [asked]
    for part in parts:
        adatp.Engine(model, batch_size=places).run(part)
    return time.process_time() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=[*SHAPES, "small"], default="ov-0.5b")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    dtype = torch.float32 if args.shape == "small" else torch.bfloat16
    model = random_llm(*(SMALL if args.shape == "small" else SHAPES[args.shape]), vocabulary=32_000, dtype=dtype)
    asked = requests(model, args.clips)
    prefill_only = [replace(request, max_new_tokens=1) for request in asked]
    contenders = {"continuous": (32, False), "static_8": (8, True), "static_32": (32, True)}
    spent: dict[str, float] = dict.fromkeys([*contenders, "prefill"], 0.0)
    for _ in range(args.rounds):
        for name, (places, is_static) in contenders.items():
            spent[name] += cpu_s(model, asked, places, is_static)
        spent["prefill"] += cpu_s(model, prefill_only, 32, True)
    result = {
        "benchmark": "continuous",
        "shape": args.shape,
        "clips": args.clips,
        **{
            f"{name}_over_continuous": round(spent[name] / spent["continuous"], 3) for name in ("static_8", "static_32")
        },
        **{
            f"{name}_over_continuous_decoding_alone": round(
                (spent[name] - spent["prefill"]) / (spent["continuous"] - spent["prefill"]), 3
            )
            for name in ("static_8", "static_32")
        },
        "cpu_s": {name: round(seconds / args.rounds, 1) for name, seconds in spent.items()},
        **describe(),
    }
    (RESULTS / f"continuous_{args.shape}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
