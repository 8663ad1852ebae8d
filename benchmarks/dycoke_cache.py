"""The most DyCoke's second stage could save: decoding on caches from which its tokens are gone before the first step.

    python -m benchmarks.dycoke_cache [--batches 1 8] [--save]

The second stage (arXiv 2411.15024) lets layers 3 and later read only 30% of the visual keys, those that the current
token attends to most in layer 2, and chooses again whenever that attention turns (cosine below 0.9 with the step
before). Since any token may come back, all stay stored: it saves reading, not memory. Here the 70% are gone for free:
no attention row, no choosing, no gathering, so a real second stage is slower than the row `bound`.

Random weights of the given shape, 32 frames of 196 tokens of which temporal merging (K = 0.7) left 3,098, 150 text
tokens, one thread, CPU seconds per new token of a clip (others may use the machine), ratios within each round.
- merged: the caches that stage 1 leaves. bound: the same, less 70% of the visual tokens from layer 3 on.
- unpruned: caches of all 6,272 tokens.
- choosing: one attention row of layer 2, its best 30%, and gathering them in the layers after; paid at every step
  that chooses anew.
"""

import argparse
import json
import statistics

import torch
from torch import Tensor

import adatp
from adatp.decode import Batch
from adatp.dycoke import dycoke_keep
from adatp.prefill import Prefilled
from benchmarks.machine import RESULTS, describe
from benchmarks.models import SHAPES, random_llm
from benchmarks.prefill import FRAMES, TEXT_TOKENS, clocked

NEW_TOKENS, ROUNDS = 12, 5
FROM_LAYER, PRUNED = 3, 0.7


def caches(model: adatp.VideoLLM, n_clips: int, visual: int, visual_later: int) -> list[Prefilled]:
    """Random caches: `visual` tokens in the layers before FROM_LAYER, `visual_later` in the others."""
    shape, config = model.llm_shape, model.hf.config.text_config
    head = shape.query_width // config.num_attention_heads
    clips = []
    for _ in range(n_clips):
        clip = Prefilled(torch.randn(shape.vocabulary), TEXT_TOKENS)
        for layer in range(shape.n_layers):
            length = TEXT_TOKENS + (visual if layer < FROM_LAYER else visual_later)
            for kept in (clip.keys, clip.values):
                kept.append(torch.randn(length, shape.key_width // head, head).to(model.dtype))
            clip.next_positions.append(length)
        clips.append(clip)
    return clips


def decode_all(model: adatp.VideoLLM, clips: list[Prefilled]) -> None:
    batch = Batch(model)
    batch.admit([(number, clip, NEW_TOKENS) for number, clip in enumerate(clips)])
    while len(batch):
        batch.step()


def decode_seconds(model: adatp.VideoLLM, n_clips: int, visual: int, visual_later: int) -> float:
    """CPU seconds per new token of a clip, laying out the caches once included: in favour of the shorter ones."""
    clips = caches(model, n_clips, visual, visual_later)
    seconds = clocked(model, lambda: decode_all(model, clips))[1]
    return seconds / (NEW_TOKENS * n_clips)


@torch.inference_mode()
def choosing_seconds(model: adatp.VideoLLM, visual: int) -> float:
    """What one clip pays at a step that chooses anew."""
    shape, config = model.llm_shape, model.hf.config.text_config
    heads, head = config.num_attention_heads, shape.query_width // config.num_attention_heads
    groups = shape.key_width // head
    keys = torch.randn(groups, visual, head).to(model.dtype)
    query = torch.randn(groups, heads // groups, head).to(model.dtype)

    def choose() -> list[Tensor]:
        row = (query.float() @ keys.float().transpose(1, 2)).softmax(-1).mean((0, 1))
        best = row.topk(int(visual * (1 - PRUNED))).indices.sort().values
        return [keys[:, best] for _ in range(2 * (shape.n_layers - FROM_LAYER))]

    choose()
    return statistics.median(clocked(model, choose)[1] for _ in range(ROUNDS))


def measure(shape: str, batches: list[int]) -> dict[str, object]:
    model = random_llm(*SHAPES[shape], device="cpu")
    c = model.tokens_per_frame
    merged = len(dycoke_keep(torch.randn(FRAMES, c, 4), int((1 - PRUNED) * c)))
    later = int(merged * (1 - PRUNED))
    contenders = {"merged": (merged, merged), "bound": (merged, later), "unpruned": (FRAMES * c, FRAMES * c)}
    decode_seconds(model, 1, 200, 200)  # warm-up
    rows = {}
    for batch in batches:
        rounds: list[dict[str, float]] = []
        for _ in range(ROUNDS):
            rounds.append({name: decode_seconds(model, batch, *sizes) for name, sizes in contenders.items()})
            print(json.dumps({"batch": batch} | rounds[-1]), flush=True)
        middle = {name: round(statistics.median(r[name] for r in rounds), 5) for name in contenders}
        ratio = statistics.median(r["bound"] / r["merged"] for r in rounds)
        rows[batch] = {"seconds_per_token": middle, "bound_over_merged": round(ratio, 4)}
    return {
        "benchmark": "dycoke_cache", "shape": shape, "dtype": "bfloat16", "visual_tokens_merged": merged,
        "visual_tokens_later_layers": later, "batches": rows,
        "choosing_seconds_per_clip": round(choosing_seconds(model, merged), 5), "clock": "cpu",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="ov-0.5b")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/dycoke_cache.json")
    args = parser.parse_args()
    machine = describe()
    torch.set_num_threads(1)
    result = measure(args.shape, args.batches) | machine | {"threads": 1}
    if args.save:
        (RESULTS / "dycoke_cache.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
