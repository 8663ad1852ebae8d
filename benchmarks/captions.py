"""Captions per second: the engine pruned and unpruned at several batch sizes, and transformers' `generate` one by one.

    python -m benchmarks.captions --batches 1 8 32

Random weights of the given shape, 8 frames of 196 tokens in three segments, vision precomputed, 64 new tokens, p = 1.
At every batch size the contenders run one after the other on the same clips; ratios are within that run. Ends with one
JSON line.
"""

import argparse
import json
import time
from collections.abc import Callable

import torch

import adatp
from adatp.engine import clip_of
from adatp.methods import resolve
from adatp.prefill import embed
from benchmarks.machine import RESULTS, describe
from benchmarks.models import SHAPES, prompt_of, random_llm

FRAMES, SEGMENTS, TEXT_TOKENS, NEW_TOKENS = 8, (3, 1, 4), 40, 64


def clips(model: adatp.VideoLLM, n: int, method: str) -> list[adatp.Request]:
    requests = []
    for i in range(n):
        generator = torch.Generator().manual_seed(i)
        tokens = torch.randn(FRAMES, model.tokens_per_frame, model.hidden_size, generator=generator)
        visual = adatp.Visual(
            tokens.to(model.device, model.dtype),
            torch.zeros(FRAMES, model.tokens_per_frame),
            torch.zeros(FRAMES, model.tokens_per_frame, 1),
        )
        prompt = prompt_of(model, TEXT_TOKENS)
        requests.append(adatp.Request(f"clip-{i}", visual, prompt, SEGMENTS, method=method, max_new_tokens=NEW_TOKENS))
    return requests


def seconds(model: adatp.VideoLLM, go: Callable[[], int]) -> float:
    """Wall time; every clip must have got all its tokens, or the comparison means nothing."""
    begun = time.perf_counter()
    shortest = go()
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    if shortest != NEW_TOKENS:
        raise RuntimeError(f"expected {NEW_TOKENS} new tokens for every clip, got {shortest}")
    return time.perf_counter() - begun


def engine(model: adatp.VideoLLM, n: int, method: str) -> Callable[[], int]:
    requests = clips(model, n, method)

    def go() -> int:
        return min(len(r.token_ids) for r in adatp.Engine(model, batch_size=n).run(requests).values())

    return go


def generate(model: adatp.VideoLLM, n: int) -> Callable[[], int]:
    inputs = []
    for request in clips(model, n, "none"):
        plan = resolve("none").plan(clip := clip_of(request, model.n_layers))
        inputs.append(embed(model, model.prompt.ids(request.prompt), plan, clip.n_visual).embeddings[None])

    def go() -> int:
        mask = [torch.ones(x.shape[:2], dtype=torch.long, device=x.device) for x in inputs]
        options = {"max_new_tokens": NEW_TOKENS, "do_sample": False}
        outputs = [
            model.hf.generate(inputs_embeds=x, attention_mask=m, **options) for x, m in zip(inputs, mask, strict=True)
        ]
        return min(int(out.shape[1]) for out in outputs)

    return go


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
    rows = []
    for n in args.batches:
        rate = {
            "pruned": n / seconds(model, engine(model, n, "adatp")),
            "unpruned": n / seconds(model, engine(model, n, "none")),
            "transformers_one_by_one": (few := min(n, 2)) / seconds(model, generate(model, few)),
        }
        rows.append({"batch": n, **{f"{name}_per_s": round(r, 4) for name, r in rate.items()}})
        rows[-1]["pruned_over_unpruned"] = round(rate["pruned"] / rate["unpruned"], 3)
        rows[-1]["pruned_over_transformers"] = round(rate["pruned"] / rate["transformers_one_by_one"], 3)
        print(rows[-1], flush=True)
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
    if args.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"captions_{args.shape}_{args.device}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
