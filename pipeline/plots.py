"""Pictures of a verdict. Needs matplotlib, which only development installs."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from pipeline.evaluate import AUDITS, Answer
from pipeline.verdict import Verdict


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
