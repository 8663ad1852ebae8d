"""The paper's two biases measured on a model of any family: figures 1 to 3 and 5, and its two meters.

python -m benchmarks.bias [--model builtin] [--video FILE] [--clips 48] [--output build/bias]

The figures go to --output as PNG, the meters as meters.json. Without --video the clips are planted ones of the dev
split, each with its question; the figures show their mean. Frames reach the model as in the job: resized by its own
recipe, normalised by its own numbers, with their times.
"""

import argparse
import json
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

import adatp
from benchmarks.machine import describe
from pipeline.decoding.resize import resize_image
from pipeline.evaluation.bias import attention_of_text, position_peak, recency
from pipeline.evaluation.plots import plot_bias, plot_kept
from pipeline.models.checkpoints import ModelFiles, fetch, resolve_model
from pipeline.models.pixels import normalise
from pipeline.planted.items import benchmark_items

FRAMES = 32


def see(model: adatp.VideoLLM, files: ModelFiles, images: list[Image.Image]) -> adatp.Visual:
    """Visual tokens of pictures a second apart."""
    resized = np.stack([resize_image(image, files.identity.resize) for image in images])
    return model.encode(
        normalise(torch.from_numpy(resized), files.normalisation), [float(i) for i in range(len(images))]
    )


def pictures_of(path: Path) -> list[Image.Image]:
    """FRAMES pictures spread evenly over a file."""
    with av.open(str(path)) as container:
        images = [frame.to_image() for frame in container.decode(video=0)]
    return [images[i] for i in np.linspace(0, len(images) - 1, FRAMES).astype(int)]


def clips_of(video: Path | None, n_clips: int) -> list[tuple[list[Image.Image], str]]:
    """Pictures and what is asked of them."""
    if video is not None:
        return [(pictures_of(video), "Describe this video in detail.")]
    return [
        ([Image.fromarray(frame) for frame in item.frames()], item.question.text)
        for item in benchmark_items("dev", n_clips)
    ]


def measure(model: adatp.VideoLLM, files: ModelFiles, clips: list[tuple[list[Image.Image], str]]) -> torch.Tensor:
    """Attention of the text, (clips, layers - 1, steps, c)."""
    engine = adatp.Engine(model)
    return torch.stack([attention_of_text(engine, see(model, files, images), text) for images, text in clips])


def meters_of(scores: torch.Tensor) -> dict[str, list[float]]:
    """Both meters by layer, over clips (clips, layers - 1, steps, c)."""
    late = torch.stack([recency(one) for one in scores]).mean(0)
    peak = position_peak(scores.mean(0))
    return {
        "recency": [round(value, 4) for value in late.tolist()],
        "position_peak": [round(value, 3) for value in peak.tolist()],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin", help="hub id, local folder or builtin, of any family")
    parser.add_argument("--video", type=Path)
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--output", type=Path, default=Path("build/bias"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    files = resolve_model(args.model, "model")
    fetch(files, print)
    model = adatp.load(files.path)
    clips = clips_of(args.video, args.clips)
    scores = measure(model, files, clips)
    visual = see(model, files, clips[0][0])
    rows, columns = visual.grid
    grid = (rows, columns + visual.row_newlines)
    written = plot_bias(args.output, scores.mean(0).numpy(), grid)
    segments = (visual.n_frames // 8,) * 7
    request = adatp.Request(
        "kept", visual, clips[0][1], (*segments, visual.n_frames - sum(segments)), max_new_tokens=1, trace=True
    )
    kept = adatp.Engine(model).run([request])["kept"].kept
    assert kept is not None
    written.append(plot_kept(args.output / "kept_mask.png", kept, visual.n_steps, grid, layer=len(kept) // 2))
    meters = meters_of(scores)
    for layer, (share, times) in enumerate(zip(*meters.values(), strict=True)):
        print(f"layer {layer}: {share:6.1%} of the top tenth in the last eighth, peak {times:.2f}x the mean")
    print("\n".join(f"wrote {path}" for path in written))
    result = {"model": args.model, "clips": len(scores), **meters} | describe()
    (args.output / "meters.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
