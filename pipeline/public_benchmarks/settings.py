"""What is compared: a method with all its options, at a budget. One row of a table each."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from adatp import AdaTP, RandomTokens, VisionZip
from adatp.methods import METHODS, PAPER_SETTINGS, PAPER_VISIONZIP_TOKENS
from adatp.plan import Method
from pipeline.config import Thresholds
from pipeline.errors import UsageError

Budget = Literal["p", "measured", "paper"]
"""How methods other than AdaTP get their budget at p: from AdaTP's schedule at that p, from the visual tokens that
the reference really kept of the same item, or as the paper's Table 1 sets them."""

BUDGETS: tuple[Budget, ...] = ("p", "measured", "paper")

TABLE_2: dict[str, AdaTP] = {
    "adatp-none": AdaTP(segments=False, global_debias=False, local_debias=False),
    "adatp-segments": AdaTP(global_debias=False, local_debias=False),
    "adatp-global": AdaTP(local_debias=False),
}
"""Table 2's rows before the last; the last is `adatp` itself."""


@dataclass(frozen=True)
class Setting:
    """A row of the table: `name` at `p`. `none` has no p: 0 stands for it.

    tau_s, tau_t: None takes the encoder's own.
    """

    name: str
    p: float
    method: Method
    tau_s: float | None = None
    tau_t: float | None = None
    measured_like: str = ""
    """A method's name: keep as many tokens as that method at this p kept of the same item."""

    @property
    def label(self) -> str:
        return self.name if self.p == 0 else f"{self.name} p={self.p:g}"

    @property
    def uses_segments(self) -> bool:
        return isinstance(self.method, AdaTP) and self.method.segments

    def method_for(self, thresholds: Thresholds, item_id: str) -> Method:
        """The method as this item gets it: AdaTP with the encoder's tau_t, random tokens with the item's own seed."""
        if isinstance(self.method, AdaTP):
            return replace(self.method, tau_t=thresholds.tau_t if self.tau_t is None else self.tau_t)
        if isinstance(self.method, RandomTokens):
            return replace(self.method, seed=int(hashlib.sha256(item_id.encode()).hexdigest()[:7], 16))
        return self.method


NONE = Setting("none", 0.0, METHODS["none"])


def parse_settings(
    methods: str, ps: Sequence[float], budget: Budget, model: str, reference: str = "adatp"
) -> tuple[Setting, ...]:
    """What --methods, --p and --budget ask for; `none` is always among it. Raises UsageError naming what is unknown."""
    names = [name.strip() for name in methods.split(",") if name.strip()]
    for name in names:
        if name not in METHODS and name not in TABLE_2:
            raise UsageError(f"--methods {name}: unknown; expected some of {', '.join([*METHODS, *TABLE_2])}")
    if reference not in METHODS or reference == "none":
        raise UsageError(f"--reference {reference}: expected a method that prunes, such as adatp or onsets")
    chosen = [name for name in dict.fromkeys(names) if name != "none"]
    return (NONE, *(_setting(name, p, budget, model, reference) for p in dict.fromkeys(ps) for name in chosen))


def _setting(name: str, p: float, budget: Budget, model: str, reference: str) -> Setting:
    if name in TABLE_2:
        return Setting(name, p, TABLE_2[name])
    if isinstance(METHODS[name], AdaTP) or (budget == "measured" and name == reference):
        return Setting(name, p, METHODS[name])
    if budget == "paper":
        return Setting(name, p, paper_method(name, p, model))
    return Setting(name, p, METHODS[name], measured_like=reference if budget == "measured" else "")


def paper_method(name: str, p: float, model: str) -> Method:
    """The baseline as Table 1 runs it. Raises UsageError where the paper has no such cell."""
    if (name, p) in PAPER_SETTINGS:
        return PAPER_SETTINGS[name, p]
    if name == "visionzip" and (key := (paper_model(model), p)) in PAPER_VISIONZIP_TOKENS:
        return VisionZip(tokens_per_frame=PAPER_VISIONZIP_TOKENS[key])
    raise UsageError(
        f"--budget paper: the paper runs no {name} at p={p:g} on {model}; "
        "expected fastv, visionzip or dycoke at 2, 1.5 or 1 on one of its three models"
    )


def paper_model(model: str) -> str:
    """Which of the paper's models a checkpoint's name means: ov-0.5b, ov-7b, lv-7b, or "" for none."""
    name = model.lower().rstrip("/").split("/")[-1]
    size = "7b" if "7b" in name else "0.5b" if "0.5b" in name else ""
    if "llava-video" in name or "llava_video" in name:
        return "lv-7b" if size == "7b" else ""
    return f"ov-{size}" if size and ("onevision" in name or "llava-ov" in name) else ""
