"""The FLOPs of Tables 1, 2 and 3, ours beside the paper's.

    python -m benchmarks.flops

Token counts are recorded in real runs of the engine on random models with the true layers, frames and tokens per frame
(and a small hidden size: the paper's accounting depends on counts alone). The clip is synthetic: its frames come in
segments, some relevant to the question, because the paper's cells average over benchmarks nobody can rerun here.
AdaTP's cells stand for both readings of `end`: N-12 at T = 130 text tokens, N-11 at T = 114 (106 for LLaVA-Video).
`adatp-no-dedup` is the schedule alone; its runs must equal METHOD 1.3's formula to 0.02 point. Ends with one JSON line.
"""

import argparse
import json
from dataclasses import dataclass, replace
from typing import Any

import torch

import adatp
from adatp.flops import ratios, siglip_vision
from adatp.methods import PAPER_SETTINGS, PAPER_VISIONZIP_TOKENS
from adatp.plan import Method
from adatp.schedule import share
from benchmarks.machine import RESULTS, describe
from benchmarks.models import SO400M, prompt_of, published, random_llm, random_visual

SCHEDULE = adatp.AdaTP(segments=False, global_debias=False, local_debias=False)  # Table 2's first row


@dataclass(frozen=True)
class Setup:
    """A column of Table 1. `text_tokens`: T for N-12 and everything without an end, and T for N-11."""

    shape: str
    n_layers: int
    n_frames: int
    layout: adatp.FrameLayout
    text_tokens: tuple[int, int]

    @property
    def ends(self) -> tuple[tuple[int, int], ...]:
        """(end, T) of both readings."""
        return ((self.n_layers - 12, self.text_tokens[0]), (self.n_layers - 11, self.text_tokens[1]))


SETUPS = {
    "ov-7b": Setup("ov-7b", 28, 32, adatp.ONEVISION, (130, 114)),
    "ov-0.5b": Setup("ov-0.5b", 24, 32, adatp.ONEVISION, (130, 114)),
    "lv-7b": Setup("ov-7b", 28, 20, adatp.LLAVA_VIDEO, (130, 106)),
}
P = (2.0, 1.5, 1.0)
PAPER_TABLE_1 = {  # LLM FLOPs in %, at p = 2, 1.5, 1
    ("ov-7b", "adatp"): (43.00, 35.48, 27.30),
    ("ov-0.5b", "adatp"): (41.08, 33.99, 26.43),
    ("lv-7b", "adatp"): (44.26, 36.63, 28.27),
    ("ov-7b", "fastv"): (54.64, 43.18, 35.20),
    ("ov-0.5b", "fastv"): (55.19, 43.66, 32.13),
    ("lv-7b", "fastv"): (54.89, 43.61, 32.33),
    ("ov-7b", "dycoke"): (50.32, 36.44, 32.84),
    ("ov-0.5b", "dycoke"): (50.32, 36.44, 32.84),
    ("lv-7b", "dycoke"): (59.26, 38.71, 35.36),
}
# Table 1's VisionZip cells as METHOD 1.3 hands them down: the tokens per frame that the printed FLOPs imply at T = 130.
IMPLIED_VISIONZIP = {"ov-7b": (88.7, 74.7, 51.9), "ov-0.5b": (84.7, 74.7, 60.7), "lv-7b": (77.2, 64.2, 47.6)}
PAPER_TABLE_2 = (  # OV-0.5B, p = 1: modules on, %
    ("adatp-no-dedup", SCHEDULE, 27.65),
    ("adatp+segments", adatp.AdaTP(global_debias=False, local_debias=False), 27.76),
    ("adatp+segments+global", adatp.AdaTP(local_debias=False), 27.33),
    ("adatp", adatp.AdaTP(), 26.43),
)
PAPER_TABLE_3 = {8: 24.46, 10: 25.45, 12: 26.43, 14: 27.37, 16: 28.40}  # OV-0.5B, p = 1: last pruned depth -> %


def clip_request(model: adatp.VideoLLM, setup: Setup, text_tokens: int, method: Method, p: float) -> adatp.Request:
    """Mostly single-frame segments, as the paper's FLOPs imply, with a few static runs; a quarter of them relevant."""
    n = setup.n_frames
    visual = random_visual(model, n, seed=3, ranked=True)
    segments = (4, 2, 2, *(1,) * (n - 8))
    relevance = tuple(0.1 if g % 4 == 1 else 0.0 for g in range(len(segments)))
    return adatp.Request(
        "clip", visual, prompt_of(model, text_tokens), segments, relevance, method, p, max_new_tokens=1
    )


def measure(model: adatp.VideoLLM, setup: Setup, text_tokens: int, method: Method, p: float) -> dict[str, Any]:
    """Counts of an engine run, and the three ratios they give at the published widths; `ours` is the paper's ratio."""
    result = adatp.Engine(model).run([clip_request(model, setup, text_tokens, method, p)])["clip"]
    assert result.n_text_tokens == text_tokens
    counts, n = result.visual_tokens_per_layer, setup.n_frames
    found = ratios(
        published(setup.shape),
        siglip_vision(SO400M, published(setup.shape)),
        counts,
        text_tokens,
        n * model.tokens_per_frame,
        n,
        n,
    )
    assert abs(found.paper - result.flops.paper) < 1e-9, "the paper's ratio depends on counts alone"
    return {
        "p": p,
        "text_tokens": text_tokens,
        "visual_tokens_per_layer": list(counts),
        "ours": round(100 * found.paper, 4),
        "with_attention": round(100 * found.with_attention, 2),
        "end_to_end": round(100 * found.end_to_end, 2),
    }


def formula(setup: Setup, tokens_per_frame: int, text_tokens: int, end: int, p: float) -> float:
    """METHOD 1.3 for the schedule alone, in %, without rounding to whole tokens."""
    v = setup.n_frames * tokens_per_frame
    visual = sum(min(1.0, (1.0 if layer < 2 else p) * share(layer, 2, end)) * v for layer in range(setup.n_layers))
    return 100 * (visual + setup.n_layers * text_tokens) / (setup.n_layers * (v + text_tokens))


def paper_baseline(name: str, method: str, i: int, tokens_per_frame: int) -> float:
    if method != "visionzip":
        return PAPER_TABLE_1[name, method][i]
    n, t = SETUPS[name].n_frames, SETUPS[name].text_tokens[0]
    return round(100 * (n * IMPLIED_VISIONZIP[name][i] + t) / (n * tokens_per_frame + t), 2)


def table_1(name: str, model: adatp.VideoLLM) -> list[dict[str, Any]]:
    setup, cells = SETUPS[name], []
    for i, p in enumerate(P):
        for end, text_tokens in setup.ends:
            for method, options in (("adatp", adatp.AdaTP(end=end)), ("adatp-no-dedup", replace(SCHEDULE, end=end))):
                cell = {"table": 1, "model": name, "method": method, "end": end}
                cells.append(cell | measure(model, setup, text_tokens, options, p))
                cells[-1]["paper"] = PAPER_TABLE_1[name, "adatp"][i]
                if method == "adatp-no-dedup":
                    cells[-1]["formula"] = round(formula(setup, model.tokens_per_frame, text_tokens, end, p), 4)
        for method in ("fastv", "dycoke", "visionzip"):
            baseline = (
                adatp.VisionZip(PAPER_VISIONZIP_TOKENS[name, p]) if method == "visionzip" else PAPER_SETTINGS[method, p]
            )
            cell = {"table": 1, "model": name, "method": method, "end": None}
            cells.append(cell | measure(model, setup, setup.text_tokens[0], baseline, p))
            cells[-1]["paper"] = paper_baseline(name, method, i, model.tokens_per_frame)
    return cells


def tables_2_and_3(model: adatp.VideoLLM) -> list[dict[str, Any]]:
    setup, cells = SETUPS["ov-0.5b"], []
    for end, text_tokens in setup.ends:
        for method, options, paper in PAPER_TABLE_2:
            cell = {"table": 2, "model": "ov-0.5b", "method": method, "end": end, "paper": paper}
            cells.append(cell | measure(model, setup, text_tokens, replace(options, end=end), 1.0))
            if method == "adatp-no-dedup":
                cells[-1]["formula"] = round(formula(setup, model.tokens_per_frame, text_tokens, end, 1.0), 4)
        for depth, paper in PAPER_TABLE_3.items():
            shifted = depth + (end - setup.ends[0][0])  # N-12 is depth 12 of 24 layers; N-11 one deeper
            cell = {"table": 3, "model": "ov-0.5b", "method": "adatp", "end": shifted, "depth": depth, "paper": paper}
            cells.append(cell | measure(model, setup, text_tokens, adatp.AdaTP(end=shifted), 1.0))
    return cells


def check(cells: list[dict[str, Any]]) -> None:
    """METHOD 1.3's acceptance: the schedule's runs equal the formula, and give Table 2's 27.65."""
    for cell in cells:
        if "formula" in cell and abs(cell["ours"] - cell["formula"]) > 0.02:
            raise SystemExit(f"the schedule's run and its formula differ by more than 0.02 point: {cell}")
    first_row = next(c for c in cells if c["table"] == 2 and c["method"] == "adatp-no-dedup" and c["end"] == 13)
    if round(first_row["ours"], 2) != 27.65:
        raise SystemExit(f"expected Table 2's first row at 27.65, got {first_row['ours']}")


def small(setup: Setup) -> adatp.VideoLLM:
    return random_llm(32, setup.n_layers, 2, 1, 32, vocabulary=128, layout=setup.layout, dtype=torch.float32)


def show(cell: dict[str, Any]) -> None:
    formula_of = f"  formula {cell['formula']:.2f}" if "formula" in cell else ""
    depth = f" depth {cell['depth']}" if "depth" in cell else ""
    end = "" if cell["end"] is None else f" end {cell['end']}"
    name = f"Table {cell['table']}  {cell['model']:8} {cell['method']:22} p={cell['p']}{end}{depth}"
    name += f" T={cell['text_tokens']}"
    print(
        f"{name:72} ours {cell['ours']:6.2f}  paper {cell['paper']:6.2f}{formula_of}"
        f"  with attention {cell['with_attention']:6.2f}  end to end {cell['end_to_end']:6.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/flops.json")
    args = parser.parse_args()
    cells = []
    for name, setup in SETUPS.items():
        model = small(setup)
        cells += table_1(name, model)
        if name == "ov-0.5b":
            cells += tables_2_and_3(model)
    for cell in cells:
        show(cell)
    check(cells)
    result = {"benchmark": "flops", "cells": cells, **describe()}
    if args.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "flops.json").write_text(json.dumps(result) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
