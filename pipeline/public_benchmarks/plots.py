"""Pictures of a table. Needs matplotlib, which only development installs."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from pipeline.public_benchmarks.table import Verdict


def plot_verdict(folder: Path, verdict: Verdict) -> list[Path]:
    """Score against FLOPs, and every setting's difference from `none` with its interval: two PNG files."""
    rows = [row for row in verdict.rows if row.llm_flops is not None]
    if not rows:
        return []
    return [_against_flops(folder / "score_flops.png", verdict), _differences(folder / "minus_none.png", verdict)]


def _against_flops(path: Path, verdict: Verdict) -> Path:
    plt.figure(figsize=(6, 4))
    for method in dict.fromkeys(row.method for row in verdict.rows):
        own = sorted((r for r in verdict.rows if r.method == method), key=lambda r: r.llm_flops or 0)
        x, y = [100 * (r.llm_flops or 0) for r in own], [100 * r.score for r in own]
        below = [100 * max(0.0, r.score - r.interval.low) for r in own]
        above = [100 * max(0.0, r.interval.high - r.score) for r in own]
        plt.errorbar(x, y, yerr=[below, above], marker="o", capsize=2, label=method)
    paper = [(r.paper_flops, r.paper) for r in verdict.rows if r.paper_flops is not None and r.paper is not None]
    if paper:
        plt.scatter(*zip(*paper, strict=True), marker="x", color="black", label="paper")
    plt.xlabel("LLM prefill FLOPs, % of unpruned")
    plt.ylabel(f"{verdict.benchmark}, %")
    plt.legend(fontsize=7)
    return _close(path)


def _differences(path: Path, verdict: Verdict) -> Path:
    rows = [row for row in reversed(verdict.rows) if row.contrast is not None]
    plt.figure(figsize=(6, 1 + 0.3 * len(rows)))
    for place, row in enumerate(rows):
        assert row.contrast is not None
        low, high = 100 * row.contrast.interval.low, 100 * row.contrast.interval.high
        plt.plot([low, high], [place, place], color="tab:blue")
        plt.plot(100 * row.contrast.difference, place, "o", color="tab:blue")
    plt.axvline(0, color="grey", linewidth=0.8)
    plt.yticks(range(len(rows)), [f"{row.method} p={row.p:g}" for row in rows], fontsize=7)
    plt.xlabel(f"{verdict.benchmark}: points minus no pruning, 95% interval")
    return _close(path)


def _close(path: Path) -> Path:
    plt.tight_layout()
    plt.savefig(path, dpi=110)
    plt.close()
    return path
