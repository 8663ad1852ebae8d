"""The paper's own numbers (arXiv 2505.20100) and what its tables run. Only cells that are known are here.

Accuracy is in percent. VideoMME and LongVideoBench are shares of all questions, MLVU is the mean of seven tasks.
LLaVA-Video's unpruned row is absent on purpose: in the paper it repeats LLaVA-OneVision-7B's digit by digit.
"""

from dataclasses import dataclass, replace

from adatp import AdaTP
from pipeline.errors import UsageError
from pipeline.public_benchmarks.settings import NONE, TABLE_2, Setting, parse_settings

MODELS = {
    "ov-0.5b": "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
    "ov-7b": "llava-hf/llava-onevision-qwen2-7b-ov-hf",
    "lv-7b": "lmms-lab/LLaVA-Video-7B-Qwen2",
}
"""The paper's models -> the checkpoints that a preset loads."""

TABLES = ("videomme", "mlvu", "longvideobench")
PS = (2.0, 1.5, 1.0)

ACCURACY: dict[tuple[str, str], dict[tuple[str, float], float]] = {
    ("ov-0.5b", "videomme"): {
        ("none", 0.0): 43.74, ("adatp", 2.0): 44.56, ("adatp", 1.5): 44.48, ("adatp", 1.0): 44.96,
        ("dycoke", 1.5): 44.10,
    },
    ("ov-0.5b", "mlvu"): {
        ("none", 0.0): 46.45, ("adatp", 2.0): 47.36, ("adatp", 1.5): 47.25, ("adatp", 1.0): 47.58,
    },
    ("ov-0.5b", "longvideobench"): {
        ("none", 0.0): 47.64, ("adatp", 2.0): 47.79, ("adatp", 1.5): 48.24, ("adatp", 1.0): 47.05,
    },
    ("ov-7b", "videomme"): {
        ("none", 0.0): 58.44, ("adatp", 2.0): 58.70, ("adatp", 1.5): 58.89, ("adatp", 1.0): 59.04,
    },
    ("ov-7b", "mlvu"): {
        ("none", 0.0): 63.25, ("adatp", 2.0): 63.95, ("adatp", 1.5): 64.27, ("adatp", 1.0): 63.47,
    },
    ("ov-7b", "longvideobench"): {
        ("none", 0.0): 56.32, ("adatp", 2.0): 56.69, ("adatp", 1.5): 55.95, ("adatp", 1.0): 56.02,
    },
    ("lv-7b", "videomme"): {("adatp", 2.0): 60.81, ("adatp", 1.5): 60.67, ("adatp", 1.0): 60.37},
    ("lv-7b", "mlvu"): {("adatp", 2.0): 62.10, ("adatp", 1.5): 61.42, ("adatp", 1.0): 60.95},
    ("lv-7b", "longvideobench"): {("adatp", 2.0): 56.32, ("adatp", 1.5): 56.77, ("adatp", 1.0): 55.72},
}  # fmt: skip
"""(model, benchmark) -> (method, p) -> the paper's score."""

PARTS = {("ov-7b", "videomme", "none", 0.0): {"short": 70.0, "medium": 56.7, "long": 48.7}}
"""Scores by duration, where they are known."""

LLM_FLOPS: dict[str, dict[tuple[str, float], float]] = {
    "ov-0.5b": {
        ("adatp", 2.0): 41.08, ("adatp", 1.5): 33.99, ("adatp", 1.0): 26.43,
        ("fastv", 2.0): 55.19, ("fastv", 1.5): 43.66, ("fastv", 1.0): 32.13,
    },
    "ov-7b": {
        ("adatp", 2.0): 43.00, ("adatp", 1.5): 35.48, ("adatp", 1.0): 27.30,
        ("fastv", 2.0): 54.64, ("fastv", 1.5): 43.18, ("fastv", 1.0): 35.20,
    },
    "lv-7b": {
        ("adatp", 2.0): 44.26, ("adatp", 1.5): 36.63, ("adatp", 1.0): 28.27,
        ("fastv", 2.0): 54.89, ("fastv", 1.5): 43.61, ("fastv", 1.0): 32.33,
        ("dycoke", 2.0): 59.26, ("dycoke", 1.5): 38.71, ("dycoke", 1.0): 35.36,
    },
}  # fmt: skip
"""model -> (method, p) -> LLM FLOPs in percent of unpruned: prefill, linear layers alone."""

AVERAGES: dict[str, dict[str, float]] = {
    "paper-table2": {"adatp-none": 45.04, "adatp-segments": 45.85, "adatp-global": 46.35, "adatp": 46.53},
    "paper-table3": {"end=8": 45.91, "end=10": 46.41, "end=12": 46.53, "end=14": 46.33, "end=16": 46.56},
    "paper-table4": {
        "tau_t=0.03": 45.78, "tau_t=0.04": 46.18, "tau_t=0.05": 46.53, "tau_t=0.06": 46.24, "tau_t=0.07": 46.38,
        "alpha=1.6": 46.30, "alpha=1.8": 46.33, "alpha=2.0": 46.38, "alpha=2.2": 46.53, "alpha=2.4": 46.44,
        "alpha=2.6": 46.29, "gamma=0.50": 46.22, "gamma=0.75": 46.53, "gamma=1.00": 46.31,
        "tau_s=0.60": 41.49, "tau_s=0.80": 44.20, "tau_s=0.90": 46.07, "tau_s=0.95": 46.53, "tau_s=1.00": 46.35,
    },
}  # fmt: skip
"""Tables 2 to 4 on OneVision-0.5B at p = 1: the mean of the three benchmarks. gamma=1.00 and tau_s=1.00 are the means
of the paper's own columns; its printed averages of the two are swapped."""


@dataclass(frozen=True)
class Preset:
    """One of the paper's tables: settings per model, asked of all three benchmarks."""

    name: str
    settings: dict[str, tuple[Setting, ...]]
    """Model (ov-7b, ...) -> rows."""


def preset(name: str) -> Preset:
    """The table as the paper runs it. Raises UsageError."""
    adatp = Setting("adatp", 1.0, AdaTP())
    if name == "paper-table1":
        methods = "none,fastv,visionzip,dycoke,adatp"
        return Preset(name, {key: parse_settings(methods, PS, "paper", model) for key, model in MODELS.items()})
    if name == "paper-table2":
        return Preset(name, {"ov-0.5b": (NONE, *(Setting(n, 1.0, m) for n, m in TABLE_2.items()), adatp)})
    if name == "paper-table3":
        rows = [replace(adatp, name=f"end={end}", method=AdaTP(end=end)) for end in (8, 10, 12, 14, 16)]
        return Preset(name, {"ov-0.5b": (NONE, *rows)})
    if name == "paper-table4":
        return Preset(name, {"ov-0.5b": (NONE, *(_swept(row, adatp) for row in AVERAGES[name]))})
    raise UsageError(f"--preset {name}: unknown; expected {', '.join(PRESETS)}")


PRESETS = ("paper-table1", "paper-table2", "paper-table3", "paper-table4")


def paper_label(method: str, p: float) -> tuple[str, float]:
    """The paper's cell of a setting: rows of Tables 2 to 4 have none in Table 1's terms, but for the defaults."""
    return ("adatp", p) if method in ("end=12", "tau_t=0.05", "alpha=2.2", "gamma=0.75", "tau_s=0.95") else (method, p)


def _swept(row: str, adatp: Setting) -> Setting:
    """ "alpha=1.6" -> that row of Table 4."""
    option, _, value = row.partition("=")
    if option == "tau_t":
        return replace(adatp, name=row, tau_t=float(value))
    if option == "tau_s":
        return replace(adatp, name=row, tau_s=float(value))
    method = AdaTP(alpha=float(value)) if option == "alpha" else AdaTP(gamma=float(value))
    return replace(adatp, name=row, method=method)
