"""Pictures of a verdict. Needs matplotlib, which only development installs."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from pipeline.evaluation.evaluate import AUDITS, Answer
from pipeline.evaluation.verdict import Verdict

COLOUR = {
    "none": "black", "adatp": "tab:blue", "onsets": "tab:red", "fastv": "tab:orange", "visionzip": "tab:brown",
    "dycoke": "tab:purple", "pyramiddrop": "tab:pink", "vidcom2": "tab:green", "evs": "tab:cyan",
    "echoprune": "tab:olive", "vcast": "darkgreen", "random": "grey", "uniform": "darkgrey", "framedrop": "peru",
    "adatp+repframes": "navy", "adatp-none": "lightsteelblue", "adatp-segments": "cornflowerblue",
    "adatp-global": "royalblue", "adatp-randomsegments": "slateblue", "adatp-truesegments": "deepskyblue",
}  # fmt: skip
"""One colour a method, in every figure."""
OTHER_COLOUR = "gold"
CHANCE = 25  # %, one choice of four
LOWEST = 20  # %, where axes of accuracy begin


def plot_verdict(folder: Path, answers: Sequence[Answer], verdict: Verdict) -> list[Path]:
    """Accuracy against FLOPs, accuracy per type, evidence that reaches each layer: three PNG files."""
    n = len({a.item_id for a in answers})
    return [
        _accuracy_against_flops(folder / "accuracy_flops.png", verdict),
        _accuracy_per_type(folder / "accuracy_types.png", verdict, n),
        _evidence_per_layer(folder / "evidence_layers.png", answers, n),
    ]


def _close(path: Path) -> Path:
    plt.tight_layout()
    plt.savefig(path, dpi=110)
    plt.close()
    return path


def _accuracy_axis() -> None:
    """0-100% from a stated origin, with the line that guessing reaches."""
    plt.axhline(CHANCE, color="grey", linewidth=0.8, linestyle=":")
    plt.annotate("chance: one in four", (0.005, CHANCE), xycoords=("axes fraction", "data"), ha="left", va="bottom",
                 fontsize=7, color="grey")  # fmt: skip
    plt.ylim(LOWEST, 101)
    plt.ylabel(f"right answers, % (axis begins at {LOWEST})")


def _accuracy_against_flops(path: Path, verdict: Verdict) -> Path:
    plt.figure(figsize=(7, 4.6))
    name = "macro" if verdict.gated else "all"
    scores = [s for s in verdict.scores if s.type == name and s.method not in AUDITS]
    for method in dict.fromkeys(s.method for s in scores):
        own = sorted((s for s in scores if s.method == method), key=lambda s: s.llm_flops_ratio)
        x = [100 * s.llm_flops_ratio for s in own]
        y = [100 * s.accuracy for s in own]
        half = [[100 * (s.accuracy - s.interval.low) for s in own], [100 * (s.interval.high - s.accuracy) for s in own]]
        colour = COLOUR.get(method, OTHER_COLOUR)
        plt.errorbar(x, y, yerr=np.abs(half), marker="o", markersize=4, capsize=2, label=method, color=colour)
    _accuracy_axis()
    plt.xlim(0, 105)
    plt.xlabel("FLOPs of the LLM's prefill, % of no pruning (axis begins at 0)")
    types = f"{len(verdict.gated)} types of question that no pruning answers" if verdict.gated else "all types"
    plt.title(
        f"What is answered at which cost: {scores[0].n} items, mean over {types};\nbars: 95% interval", fontsize=9
    )
    plt.legend(fontsize=7, ncol=2, loc="lower right", bbox_to_anchor=(1, 0.08))
    return _close(path)


def _at_one_budget(runs: Iterable[tuple[str, float]]) -> tuple[list[tuple[str, float]], str]:
    """The runs at p = 1, or at the smallest p there is, with those that have none; and what a title says of it."""
    listed = list(dict.fromkeys(runs))
    budgets = sorted({p for _, p in listed if p})
    chosen = 1.0 if 1.0 in budgets else budgets[0] if budgets else 0.0
    return [r for r in listed if r[1] in (0.0, chosen)], f"p = {chosen:g}" if chosen else "no pruning"


def _accuracy_per_type(path: Path, verdict: Verdict, n: int) -> Path:
    types = [t for t in dict.fromkeys(s.type for s in verdict.scores) if t not in ("all", "macro")]
    runs, budget = _at_one_budget((s.method, s.p) for s in verdict.scores if s.method not in AUDITS)
    plt.figure(figsize=(12, 4.4))
    width = 0.84 / len(runs)
    for i, (method, p) in enumerate(runs):
        heights = [100 * verdict.score(method, p, t).accuracy for t in types]
        places = np.arange(len(types)) + i * width
        plt.bar(places, heights, width, label=method, color=COLOUR.get(method, OTHER_COLOUR))
    _accuracy_axis()
    plt.xticks(np.arange(len(types)) + 0.42, types, rotation=30, fontsize=8)
    plt.xlabel("type of question")
    plt.title(f"Right answers by type of question, {n} items, {budget}", fontsize=9)
    plt.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return _close(path)


def _evidence_per_layer(path: Path, answers: Sequence[Answer], n: int) -> Path:
    plt.figure(figsize=(7.6, 4.4))
    runs, budget = _at_one_budget((a.method, a.p) for a in answers if a.evidence_kept_per_layer)
    for method, p in runs:
        kept = [a.evidence_kept_per_layer for a in answers if (a.method, a.p) == (method, p) and not a.error]
        plt.plot(100 * np.mean(kept, axis=0), marker=".", label=method, color=COLOUR.get(method, OTHER_COLOUR))
    plt.ylim(0, 102)
    plt.xlabel("decoder layer")
    plt.ylabel("items, % (axis begins at 0)")
    plt.title(f"Items whose evidence still enters each layer, of {n}, {budget}", fontsize=9)
    plt.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return _close(path)


def plot_bias(folder: Path, scores: "np.typing.NDArray[np.float32]", grid: tuple[int, int]) -> list[Path]:
    """The paper's Fig. 1-3 for `scores` (layers, n, c): attention per frame, and per position, of each layer.

    `grid` is (rows, columns) of the c positions of a frame.
    """
    by_frame = scores.sum(2) / scores.sum((1, 2), keepdims=True)[..., 0]
    plt.figure(figsize=(6, 4))
    for layer, row in enumerate(by_frame):
        plt.plot(100 * row, label=f"layer {layer}", color=plt.get_cmap("viridis")(layer / max(1, len(by_frame) - 1)))
    even = 100 / scores.shape[1]
    plt.axhline(even, color="grey", linestyle=":", linewidth=0.8)
    plt.annotate("even", (0, even), fontsize=7, color="grey", va="bottom")
    plt.ylim(bottom=0)
    plt.xlabel("frame")
    plt.ylabel("share of the attention on visual tokens, % (axis begins at 0)")
    plt.title("Which frames the text attends to, layer by layer", fontsize=9)
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
    figure.suptitle("Attention of the text by position in the frame", fontsize=9)
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
