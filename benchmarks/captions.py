"""Captions per second: the engine pruned and unpruned at several batch sizes, and transformers' `generate` one by one.

    python -m benchmarks.captions --batches 1 8 32

Random weights of the given shape, 8 frames of 196 tokens in three segments, vision precomputed, 64 new tokens, p = 1.
At every batch size the contenders run one after the other on the same clips; ratios are within that run, by wall clock
and (`_cpu`) by CPU seconds over all threads, the fairer clock on a machine that others use too. Ends with a JSON line.
"""

import argparse
import json
import time
from collections.abc import Callable

import torch

import adatp
from adatp.engine import clip_of, layout_of
from adatp.methods import resolve
from adatp.prefill import embed
from benchmarks.machine import RESULTS, describe
from benchmarks.models import SHAPES, prompt_of, random_llm, random_visual

FRAMES, SEGMENTS, TEXT_TOKENS, NEW_TOKENS = 8, (3, 1, 4), 40, 64


def clips(model: adatp.VideoLLM, n: int, method: str) -> list[adatp.Request]:
    requests = []
    for i in range(n):
        visual = random_visual(model, FRAMES, seed=i)
        prompt = prompt_of(model, TEXT_TOKENS)
        requests.append(adatp.Request(f"clip-{i}", visual, prompt, SEGMENTS, method=method, max_new_tokens=NEW_TOKENS))
    return requests


def seconds(model: adatp.VideoLLM, go: Callable[[], int]) -> tuple[float, float]:
    """(wall, CPU over all threads); every clip must have got all its tokens, or the comparison means nothing."""
    wall, cpu = time.perf_counter(), time.process_time()
    shortest = go()
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    if shortest != NEW_TOKENS:
        raise RuntimeError(f"expected {NEW_TOKENS} new tokens for every clip, got {shortest}")
    return time.perf_counter() - wall, time.process_time() - cpu


def engine(model: adatp.VideoLLM, n: int, method: str) -> Callable[[], int]:
    requests = clips(model, n, method)

    def go() -> int:
        return min(len(r.token_ids) for r in adatp.Engine(model, batch_size=n).run(requests).values())

    return go


def generate(model: adatp.VideoLLM, n: int) -> Callable[[], int]:
    inputs = []
    for request in clips(model, n, "none"):
        plan = resolve("none").plan(clip := clip_of(request, model))
        inputs.append(embed(model, layout_of(request, clip, model), clip, plan).embeddings[None])

    def go() -> int:
        mask = [torch.ones(x.shape[:2], dtype=torch.long, device=x.device) for x in inputs]
        options = {"max_new_tokens": NEW_TOKENS, "do_sample": False}
        outputs = [
            model.hf.generate(inputs_embeds=x, attention_mask=m, **options) for x, m in zip(inputs, mask, strict=True)
        ]
        return min(int(out.shape[1]) for out in outputs)

    return go


def one_batch_size(model: adatp.VideoLLM, n: int) -> dict[str, float]:
    """Captions per second of the three contenders, and the pruned engine's ratios by wall clock and by CPU seconds."""
    alone = min(n, 2)  # one by one, more clips would say the same
    per_clip = {
        name: [t / clips for t in seconds(model, go)]
        for name, clips, go in (
            ("pruned", n, engine(model, n, "adatp")),
            ("unpruned", n, engine(model, n, "none")),
            ("transformers_one_by_one", alone, generate(model, alone)),
        )
    }
    row: dict[str, float] = {"batch": n}
    row |= {f"{name}_per_s": round(1 / wall, 4) for name, (wall, _) in per_clip.items()}
    for clock, name in enumerate(("", "_cpu")):
        pruned = per_clip["pruned"][clock]
        row[f"pruned_over_unpruned{name}"] = round(per_clip["unpruned"][clock] / pruned, 3)
        row[f"pruned_over_transformers{name}"] = round(per_clip["transformers_one_by_one"][clock] / pruned, 3)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="ov-0.5b")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/captions_<shape>_<device>.json")
    args = parser.parse_args()
    machine = describe()  # before the run: the commit that is measured
    model = random_llm(*SHAPES[args.shape], device=args.device)
    engine(model, 1, "adatp")()  # warm-up
    rows: list[dict[str, float]] = []
    result = {
        "benchmark": "captions",
        "shape": args.shape,
        "dtype": "bfloat16",
        "frames": FRAMES,
        "segments": list(SEGMENTS),
        "text_tokens": TEXT_TOKENS,
        "new_tokens": NEW_TOKENS,
        "batches": rows,
        **machine,
    }
    for n in args.batches:
        rows.append(one_batch_size(model, n))
        print(rows[-1], flush=True)
        if args.save:  # after each batch size: the largest takes long
            RESULTS.mkdir(exist_ok=True)
            (RESULTS / f"captions_{args.shape}_{args.device}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
