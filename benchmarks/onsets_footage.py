"""What onsets keep of real footage: theta found by the budget, and tokens kept a frame against how much moves.

    python -m benchmarks.onsets_footage [--videos ../shared/videos/open] [--save]

Every video is sampled once a second; its first 32 frames are encoded by the builtin model and captioned under `onsets`
at p = 1. The builtin model was not made for real footage: this shows how theta behaves, not what an answer is worth. A
frame's motion is the mean angle between its tokens and those of the frame before. `--save` writes
benchmarks/results/onsets_footage.json and .png.
"""

import argparse
import json
from pathlib import Path

import av
import numpy as np
import torch

import adatp
from adatp.onsets import Onsets, chords, onsets_keep, smallest_theta
from benchmarks.cuts import samples
from benchmarks.machine import RESULTS, describe
from pipeline.models.checkpoints import resolve_model
from pipeline.models.pixels import normalise

FRAMES = 32


def measure(model: adatp.VideoLLM, name: str, visual: adatp.Visual) -> dict[str, object]:
    n, c = visual.tokens.shape[:2]
    asked = adatp.Request(name, visual, "Describe this video in detail.", method="onsets", max_new_tokens=16)
    result = adatp.Engine(model).run([asked])[name]
    budget, refresh = max(c, round(0.4 * n * c)), Onsets().refresh
    kept = onsets_keep(visual.tokens, budget, refresh)
    apart = chords(visual.tokens)
    theta = float(smallest_theta(apart, budget, refresh))
    following = apart.diagonal(offset=1, dim1=1, dim2=2)  # (c, n - 1)
    motion = (2 * (following / 2).asin()).mean(0).tolist()
    per_frame = torch.bincount(kept // c, minlength=n).tolist()
    row = {"video": name, "frames": n, "theta": round(theta, 4), "kept": len(kept), "budget": budget,
           "tokens_per_frame": per_frame, "motion": [round(m, 4) for m in motion],
           "visual_tokens_per_layer": list(result.visual_tokens_per_layer)}  # fmt: skip
    if n > 2 and np.std(per_frame[1:]) and np.std(motion):
        row["correlation"] = round(float(np.corrcoef(motion, per_frame[1:])[0, 1]), 3)
    return row


def plot(rows: list[dict[str, object]], c: int, target: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    _, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2))
    for row in rows:
        motion, kept = row["motion"], row["tokens_per_frame"]
        assert isinstance(motion, list)
        assert isinstance(kept, list)
        left.scatter(motion, kept[1:], s=9, alpha=0.5, color="tab:red")
        if motion:
            right.scatter(float(np.mean(motion)), row["theta"], s=18, color="tab:red")
    left.set_title(f"Tokens kept of a frame against its motion, {len(rows)} real videos", fontsize=9)
    left.set_xlabel("mean angle to the frame before, rad (axis begins at 0)")
    left.set_ylabel(f"tokens kept of {c} (axis begins at 0)")
    right.set_title("theta that the budget gives, against the video's mean motion", fontsize=9)
    right.set_xlabel("mean angle between neighbouring frames, rad (axis begins at 0)")
    right.set_ylabel("theta, rad (axis begins at 0)")
    for axis in (left, right):
        axis.set_xlim(left=0)
        axis.set_ylim(bottom=0)
    plt.tight_layout()
    plt.savefig(target, dpi=110)
    plt.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, default=Path("../shared/videos/open"))
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/onsets_footage.json and .png")
    args = parser.parse_args()
    machine, files = describe(), resolve_model("builtin", "model")
    model, rows, unread = adatp.load(files.path), [], []
    size = (files.identity.resize.width, files.identity.resize.height)
    for path in sorted(args.videos.iterdir()):
        frames = []
        try:
            for _, frame in samples(path, size, 1.0):
                frames.append(frame)
                if len(frames) == FRAMES:
                    break
        except (av.FFmpegError, UnicodeDecodeError) as error:
            unread.append(f"{path.name}: {error}")  # what came before the error is used
        if frames:
            visual = model.encode(normalise(torch.from_numpy(np.stack(frames)), files.normalisation))
            rows.append(measure(model, path.name, visual))
            print(json.dumps({k: v for k, v in rows[-1].items() if not isinstance(v, list)}), flush=True)
    result = {"benchmark": "onsets_footage", "videos": len(rows), "reading_errors": unread, "rows": rows} | machine
    if args.save:
        (RESULTS / "onsets_footage.json").write_text(json.dumps(result, indent=1) + "\n")
        plot(rows, model.tokens_per_frame, RESULTS / "onsets_footage.png")
    print(json.dumps({k: v for k, v in result.items() if k != "rows"}))


if __name__ == "__main__":
    main()
