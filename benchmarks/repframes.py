"""End-to-end FLOPs of AdaTP and of `adatp+repframes` with each encoder a user may choose, at published shapes.

    python -m benchmarks.repframes

32 frames, 150 text tokens, p = 1. Two kinds of clip: eight segments of four frames, and 32 segments of one, where
nothing repeats. The encoder runs over all frames and is counted against pruning. "own tower" would segment by the Video
LLM's own features: it costs nothing more, but no text can be compared with them, and all frames must be encoded first.
Token counts come from engine runs with the true layers, frames and tokens per frame at a small hidden size; FLOPs are
then those of the published shape. Ends with one JSON line.
"""

import argparse
import json
from typing import Any

import torch

import adatp
from adatp.flops import ratios, siglip_vision
from benchmarks.machine import RESULTS, describe
from benchmarks.models import SHAPES, SO400M, prompt_of, published, random_llm, random_visual

FRAMES, TEXT_TOKENS = 32, 150
CLIPS = {"8 segments": (4,) * 8, "32 segments": (1,) * 32}


def _base(size: int) -> adatp.TowerShape:
    return adatp.TowerShape(12, 768, 3072, patch_size=16, n_patches=(size // 16) ** 2, has_head=True)


ENCODERS = {
    "google/siglip-base-patch16-224": _base(224),
    "google/siglip-base-patch16-384": _base(384),
    "google/siglip-so400m-patch14-384": adatp.TowerShape(27, 1152, 4304, 14, 729, has_head=True),
    "own tower": None,
}


def counts_of(model: adatp.VideoLLM, method: str, segments: tuple[int, ...]) -> tuple[int, ...]:
    visual = random_visual(model, FRAMES, seed=3)
    request = adatp.Request("clip", visual, prompt_of(model, TEXT_TOKENS), segments, method=method, max_new_tokens=1)
    return adatp.Engine(model).run([request])["clip"].visual_tokens_per_layer


def cells_of(shape: str, model: adatp.VideoLLM, method: str, clip: str) -> list[dict[str, Any]]:
    """One clip under one method, with every encoder."""
    counts, cells = counts_of(model, method, CLIPS[clip]), []
    encoded = len(CLIPS[clip]) if method == "adatp+repframes" else FRAMES
    for name, tower in ENCODERS.items():
        if tower is None and method == "adatp+repframes":
            continue  # what is encoded depends on the segments
        found = ratios(
            published(shape),
            siglip_vision(SO400M, published(shape)),
            counts,
            TEXT_TOKENS,
            FRAMES * model.tokens_per_frame,
            FRAMES,
            encoded,
            0.0 if tower is None else adatp.tower_flops(tower, FRAMES),
        )
        cells.append(
            {
                "shape": shape,
                "method": method,
                "clip": clip,
                "encoder": name,
                "visual_tokens_per_layer": list(counts),
                "frames_encoded": encoded,
                "paper": round(100 * found.paper, 2),
                "with_attention": round(100 * found.with_attention, 2),
                "end_to_end": round(100 * found.end_to_end, 2),
            }
        )
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/repframes.json")
    args = parser.parse_args()
    cells: list[dict[str, Any]] = []
    for shape, (_, n_layers, *_rest) in SHAPES.items():
        model = random_llm(32, n_layers, 2, 1, 32, vocabulary=128, dtype=torch.float32)
        for method in ("adatp", "adatp+repframes"):
            for clip in CLIPS:
                for row in cells_of(shape, model, method, clip):
                    cells.append(row)
                    print(
                        f"{shape:8} {method:16} {clip:12} {row['encoder']:33} LLM {row['paper']:6.2f}%  "
                        f"end to end {row['end_to_end']:6.2f}%",
                        flush=True,
                    )
    result = {"benchmark": "repframes", "p": 1.0, "cells": cells, **describe()}
    if args.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "repframes.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
