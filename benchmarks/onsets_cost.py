"""What choosing onsets costs beside the prefill it shortens, at a published shape.

    python -m benchmarks.onsets_cost [--shape ov-0.5b] [--save]

Random weights, 32 frames of 196 tokens, 150 text tokens, p = 1, one thread, CPU seconds (others may use the machine).
Choosing is everything `onsets` does beside the decoder's own layers: what enters layer 0 (`onsets_keep`), and scoring
and selecting of every cut. The tokens are planted: a position keeps its token with chance 0.7, else it takes a new one;
and, beside that, frames that are all alike and frames that share nothing. Ends with one JSON line.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

import adatp
from adatp.engine import clip_of, layout_of
from adatp.methods import resolve
from adatp.onsets import Onsets, onsets_keep
from adatp.prefill import embed, prefill
from adatp.schedule import budgets, default_end
from adatp.scores import attention_received
from benchmarks.machine import RESULTS, describe
from benchmarks.models import SHAPES, random_llm
from benchmarks.prefill import FRAMES, ONE_FRAME_EACH, TEXT_TOKENS, clip_request, clocked

ROUNDS = 5


def contents(c: int, d: int) -> dict[str, Tensor]:
    """Frames (32, c, d) by what happens in them."""
    generator = torch.Generator().manual_seed(7)
    fresh = torch.randn(FRAMES, c, d, generator=generator)
    mixed = [fresh[0]]
    for frame in range(1, FRAMES):
        stays = torch.rand(c, 1, generator=generator) < 0.7
        mixed.append(torch.where(stays, mixed[-1], fresh[frame]))
    return {"mixed": torch.stack(mixed), "all different": fresh, "all alike": fresh[:1].repeat(FRAMES, 1, 1)}


def cpu_seconds(model: adatp.VideoLLM, go: Callable[[], object]) -> float:
    go()
    return statistics.median(clocked(model, go)[1] for _ in range(ROUNDS))


@torch.inference_mode()
def cut_seconds(model: adatp.VideoLLM, alive: tuple[int, ...], plan: adatp.plan.Plan, rows: int) -> float:
    """Scoring and selecting of all cuts, on random tensors of their shapes; `alive` enter each layer."""
    shape, total = model.llm_shape, 0.0
    head = shape.query_width // model.hf.config.text_config.num_attention_heads
    for cut in plan.cuts:
        n = alive[cut.layer - 1]
        query = torch.randn(rows, shape.query_width // head, head).to(model.dtype)
        key = torch.randn(n + TEXT_TOKENS, shape.key_width // head, head).to(model.dtype)

        def one(cut: adatp.plan.Cut = cut, query: Tensor = query, key: Tensor = key, n: int = n) -> None:
            cut.select(torch.arange(n), attention_received(query, key, torch.arange(n), head**-0.5))

        total += cpu_seconds(model, one)
    return total


def measure(shape: str) -> dict[str, object]:
    model = random_llm(*SHAPES[shape], device="cpu")
    c, d = model.tokens_per_frame, model.hidden_size
    budget = budgets(FRAMES * c, model.n_layers, 1.0, 2, default_end(model.n_layers))[2]
    entering = {
        name: cpu_seconds(model, partial(onsets_keep, frames.to(model.dtype), budget, Onsets().refresh))
        for name, frames in contents(c, d).items()
    }
    base = clip_request(model, "onsets", ONE_FRAME_EACH)
    tokens = contents(c, d)["mixed"].to(model.dtype)
    request = replace(base, visual=replace(base.visual, tokens=tokens))
    clip = clip_of(request, model)
    layout = layout_of(request, clip, model)

    def run(method: str) -> tuple[int, ...]:
        done = prefill(model, [embed(model, layout, clip, resolve(method).plan(clip))])[0]
        return tuple(len(origin) for origin in done.origins)

    alive = run("onsets")  # also the warm-up
    cuts = cut_seconds(model, alive, resolve("onsets").plan(clip), layout.n_after)
    seconds = {method: clocked(model, partial(run, method))[1] for method in ("onsets", "none")}
    return {
        "benchmark": "onsets_cost", "shape": shape, "dtype": "bfloat16", "frames": FRAMES, "text_tokens": TEXT_TOKENS,
        "p": 1.0, "clock": "cpu", "entering_seconds": {name: round(s, 4) for name, s in entering.items()},
        "cut_seconds": round(cuts, 4), "unpruned_prefill_seconds": round(seconds["none"], 2),
        "pruned_prefill_seconds": round(seconds["onsets"], 2),
        "entering_over_unpruned": round(max(entering.values()) / seconds["none"], 5),
        "choosing_over_unpruned": round((max(entering.values()) + cuts) / seconds["none"], 5),
        "pruned_over_unpruned": round(seconds["onsets"] / seconds["none"], 4),
        "visual_tokens_per_layer": list(alive),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="ov-0.5b")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/onsets_cost.json")
    args = parser.parse_args()
    machine = describe()
    torch.set_num_threads(1)
    result = measure(args.shape) | machine | {"threads": 1}
    if args.save:
        (RESULTS / "onsets_cost.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
