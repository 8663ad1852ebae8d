"""Pictures of a verdict. Needs matplotlib, which only development installs."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from pipeline.evaluation.evaluate import AUDITS, Answer
from pipeline.evaluation.verdict import Verdict


def plot_verdict(folder: Path, answers: Sequence[Answer], verdict: Verdict) -> list[Path]:
    """Accuracy against FLOPs, accuracy per type, evidence that reaches each layer: three PNG files."""
    return [
        _accuracy_against_flops(folder / "accuracy_flops.png", verdict),
        _accuracy_per_type(folder / "accuracy_types.png", verdict),
        _evidence_per_layer(folder / "evidence_layers.png", answers),
    ]


def _close(path: Path) -> Path:
    plt.tight_layout()
    plt.savefig(path, dpi=110)
    plt.close()
    return path


def _accuracy_against_flops(path: Path, verdict: Verdict) -> Path:
    plt.figure(figsize=(6, 4))
    name = "macro" if verdict.gated else "all"
    scores = [s for s in verdict.scores if s.type == name and s.method not in AUDITS]
    for method in dict.fromkeys(s.method for s in scores):
        own = sorted((s for s in scores if s.method == method), key=lambda s: s.llm_flops_ratio)
        x = [100 * s.llm_flops_ratio for s in own]
        y = [100 * s.accuracy for s in own]
        half = [[100 * (s.accuracy - s.interval.low) for s in own], [100 * (s.interval.high - s.accuracy) for s in own]]
        plt.errorbar(x, y, yerr=np.abs(half), marker="o", capsize=2, label=method)
    plt.xlabel("LLM prefill FLOPs, % of unpruned")
    plt.ylabel(f"accuracy, % ({name} over types)")
    plt.legend(fontsize=7)
    return _close(path)


def _accuracy_per_type(path: Path, verdict: Verdict) -> Path:
    types = [t for t in dict.fromkeys(s.type for s in verdict.scores) if t not in ("all", "macro")]
    runs = [r for r in dict.fromkeys((s.method, s.p) for s in verdict.scores) if r[0] not in AUDITS]
    plt.figure(figsize=(11, 4))
    width = 0.8 / len(runs)
    for i, (method, p) in enumerate(runs):
        heights = [100 * verdict.score(method, p, t).accuracy for t in types]
        plt.bar(np.arange(len(types)) + i * width, heights, width, label=method if p == 0 else f"{method} p={p:g}")
    plt.axhline(25, color="grey", linewidth=0.8, linestyle=":")
    plt.xticks(np.arange(len(types)) + 0.4, types, rotation=30, fontsize=8)
    plt.ylabel("accuracy, %")
    plt.legend(fontsize=6, ncol=2)
    return _close(path)


def _evidence_per_layer(path: Path, answers: Sequence[Answer]) -> Path:
    plt.figure(figsize=(6, 4))
    runs = dict.fromkeys((a.method, a.p) for a in answers if a.evidence_kept_per_layer)
    for method, p in runs:
        kept = [a.evidence_kept_per_layer for a in answers if (a.method, a.p) == (method, p) and not a.error]
        plt.plot(100 * np.mean(kept, axis=0), marker=".", label=method if p == 0 else f"{method} p={p:g}")
    plt.xlabel("layer")
    plt.ylabel("items whose evidence is still there, %")
    plt.legend(fontsize=7)
    return _close(path)


def plot_bias(folder: Path, scores: "np.typing.NDArray[np.float32]", grid: tuple[int, int]) -> list[Path]:
    """The paper's Fig. 1-3 for `scores` (layers, n, c): attention per frame, and per position, of each layer.

    `grid` is (rows, columns) of the c positions of a frame.
    """
    by_frame = scores.sum(2) / scores.sum((1, 2), keepdims=True)[..., 0]
    plt.figure(figsize=(6, 4))
    for layer, row in enumerate(by_frame):
        plt.plot(100 * row, label=f"layer {layer}", color=plt.get_cmap("viridis")(layer / max(1, len(by_frame) - 1)))
    plt.axhline(100 / scores.shape[1], color="grey", linestyle=":", linewidth=0.8)
    plt.xlabel("frame")
    plt.ylabel("share of the attention on visual tokens, %")
    plt.legend(fontsize=6, ncol=2)
    frames = _close(folder / "bias_frames.png")
    by_position = scores.mean(1)
    by_position = by_position / by_position.mean(1, keepdims=True)
    figure, axes = plt.subplots(1, len(by_position), figsize=(1.8 * len(by_position), 2.2), squeeze=False)
    for layer, axis in enumerate(axes[0]):
        image = axis.imshow(by_position[layer].reshape(grid), vmin=0, vmax=float(by_position.max()))
        axis.set_title(f"layer {layer}", fontsize=7)
        axis.axis("off")
    figure.colorbar(image, ax=axes[0].tolist(), label="times the mean")
    positions = folder / "bias_positions.png"
    plt.savefig(positions, dpi=110)
    plt.close()
    return [frames, positions]


def plot_kept(path: Path, kept: Sequence[Sequence[int]], n_frames: int, grid: tuple[int, int], layer: int) -> Path:
    """The paper's Fig. 5: which positions of each frame are left on entry to `layer`. `kept` as in `Result.kept`."""
    rows, columns = grid
    mask = np.zeros(n_frames * rows * columns)
    mask[list(kept[layer])] = 1
    per_row = min(8, n_frames)
    figure, axes = plt.subplots(
        -(-n_frames // per_row), per_row, figsize=(per_row, -(-n_frames // per_row)), squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for frame, axis in zip(range(n_frames), axes.flat, strict=False):
        axis.imshow(mask.reshape(n_frames, rows, columns)[frame], vmin=-0.2, vmax=1, cmap="gray_r")  # grey: pruned
        axis.set_title(str(frame), fontsize=6)
    figure.suptitle(f"tokens left on entry to layer {layer}", fontsize=8)
    return _close(path)
