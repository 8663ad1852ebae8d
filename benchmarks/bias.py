"""The paper's two biases measured on a model: figures 1 to 3 and 5, and its two meters.

python -m benchmarks.bias [--model builtin] [--video FILE] [--clips 48] [--output build/bias]

The figures go to --output as PNG, the meters as meters.json. Without --video the clips are planted ones of the dev
split, each with its question; the figures show their mean.
"""

import argparse
import json
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

from adatp import Request
from benchmarks.machine import describe
from pipeline.evaluation.bench import open_bench
from pipeline.evaluation.bias import attention_of_text, position_peak, recency
from pipeline.evaluation.evaluate import Bench
from pipeline.evaluation.plots import plot_bias, plot_kept
from pipeline.models.pixels import normalise
from pipeline.planted.items import benchmark_items


def _frames_of(path: Path, side: int, count: int = 32) -> torch.Tensor:
    """`count` frames spread evenly over a file, (count, side, side, 3) uint8."""
    with av.open(str(path)) as container:
        images = [frame.to_image() for frame in container.decode(video=0)]
    chosen = np.linspace(0, len(images) - 1, count).astype(int)
    resized = [images[i].resize((side, side), Image.Resampling.BICUBIC) for i in chosen]
    return torch.from_numpy(np.stack([np.asarray(image) for image in resized]))


def _scores(bench: Bench, video: Path | None, n_clips: int) -> torch.Tensor:
    """(clips, layers - 1, n, c)"""
    if video is not None:
        frames = _frames_of(video, bench.engine.model.frame_size[0])
        visual = bench.engine.model.encode(normalise(frames, bench.model_pixels))
        return attention_of_text(bench.engine, visual, "Describe this video in detail.")[None]
    items = benchmark_items("dev", n_clips)
    seen = [bench.see(item) for item in items]
    return torch.stack([attention_of_text(bench.engine, s.visual, s.item.question.text) for s in seen])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--encoder", default="builtin")
    parser.add_argument("--video", type=Path)
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--output", type=Path, default=Path("build/bias"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    bench = open_bench(args.model, args.encoder)
    scores = _scores(bench, args.video, args.clips)
    c = scores.shape[-1]
    grid = (round(c**0.5), c // round(c**0.5))
    written = plot_bias(args.output, scores.mean(0).numpy(), grid)
    item = benchmark_items("dev", 12)[0]
    seen = bench.see(item)
    request = Request(
        "kept", seen.visual, item.question.text, seen.segments, seen.relevance, max_new_tokens=1, trace=True
    )
    kept = bench.engine.run([request])["kept"].kept
    assert kept is not None
    written.append(plot_kept(args.output / "kept_mask.png", kept, 32, grid, layer=len(kept) // 2))
    late = torch.stack([recency(one) for one in scores]).mean(0)
    peak = position_peak(scores.mean(0))
    for layer, (share, times) in enumerate(zip(late.tolist(), peak.tolist(), strict=True)):
        print(f"layer {layer}: {share:6.1%} of the top tenth in the last eighth, peak {times:.2f}x the mean")
    print("\n".join(f"wrote {path}" for path in written))
    meters = {"recency": [round(v, 4) for v in late.tolist()], "position_peak": [round(v, 3) for v in peak.tolist()]}
    result = {"model": args.model, "clips": len(scores), **meters} | describe()
    (args.output / "meters.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
