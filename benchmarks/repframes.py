"""End-to-end FLOPs of `adatp+repframes` beside AdaTP's, at published shapes.

    python -m benchmarks.repframes

Eight segments of four frames, 32 frames, 150 text tokens, p = 1, a SigLIP base-size segmentation encoder (patch 16, 224
pixels) over all frames. Token counts come from engine runs with the true layers, frames and tokens per frame at a small
hidden size; FLOPs are then those of the published shape. Ends with one JSON line.
"""

import argparse
import json
from typing import Any

import torch

import adatp
from adatp.flops import ratios, siglip_vision
from benchmarks.machine import RESULTS, describe
from benchmarks.models import SHAPES, SO400M, prompt_of, published, random_llm, random_visual

FRAMES, TEXT_TOKENS, SEGMENTS = 32, 150, (4,) * 8
SIGLIP_BASE = adatp.TowerShape(n_layers=12, hidden=768, feed_forward=3072, patch_size=16, n_patches=196, has_head=True)


def counts_of(model: adatp.VideoLLM, method: str) -> tuple[int, ...]:
    visual = random_visual(model, FRAMES, seed=3)
    request = adatp.Request("clip", visual, prompt_of(model, TEXT_TOKENS), SEGMENTS, method=method, max_new_tokens=1)
    return adatp.Engine(model).run([request])["clip"].visual_tokens_per_layer


def cell(shape: str, model: adatp.VideoLLM, method: str) -> dict[str, Any]:
    counts = counts_of(model, method)
    encoded = len(SEGMENTS) if method == "adatp+repframes" else FRAMES
    encoder = adatp.tower_flops(SIGLIP_BASE, FRAMES)
    found = ratios(
        published(shape),
        siglip_vision(SO400M, published(shape)),
        counts,
        TEXT_TOKENS,
        FRAMES * model.tokens_per_frame,
        FRAMES,
        encoded,
        encoder,
    )
    return {
        "shape": shape,
        "method": method,
        "visual_tokens_per_layer": list(counts),
        "frames_encoded": encoded,
        "paper": round(100 * found.paper, 2),
        "with_attention": round(100 * found.with_attention, 2),
        "end_to_end": round(100 * found.end_to_end, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/repframes.json")
    args = parser.parse_args()
    cells = []
    for shape, (_, n_layers, *_rest) in SHAPES.items():
        model = random_llm(32, n_layers, 2, 1, 32, vocabulary=128, dtype=torch.float32)
        for method in ("adatp", "adatp+repframes"):
            cells.append(cell(shape, model, method))
            row = cells[-1]
            print(
                f"{shape:8} {method:16} LLM {row['paper']:6.2f}%  with attention {row['with_attention']:6.2f}%  "
                f"end to end {row['end_to_end']:6.2f}%",
                flush=True,
            )
    result = {"benchmark": "repframes", "segments": list(SEGMENTS), "p": 1.0, "cells": cells, **describe()}
    if args.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "repframes.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
