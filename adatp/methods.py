"""The methods by name, and the settings the paper's Table 1 runs its baselines with."""

from types import MappingProxyType

from adatp.controls import FrameDrop, NoPruning, RandomTokens, UniformTokens
from adatp.dycoke import DyCoke
from adatp.echoprune import EchoPrune
from adatp.evs import EVS
from adatp.fastv import FastV
from adatp.method import AdaTP
from adatp.onsets import Onsets
from adatp.plan import Method
from adatp.pyramiddrop import PyramidDrop
from adatp.vcast import VCast
from adatp.vidcom2 import VidCom2
from adatp.visionzip import VisionZip

METHODS: MappingProxyType[str, Method] = MappingProxyType(
    {
        "none": NoPruning(),
        "adatp": AdaTP(),
        "fastv": FastV(),
        "visionzip": VisionZip(),
        "dycoke": DyCoke(),
        "pyramiddrop": PyramidDrop(),
        "vidcom2": VidCom2(),
        "evs": EVS(),
        "echoprune": EchoPrune(),
        "vcast": VCast(),
        "onsets": Onsets(),
        "random": RandomTokens(),
        "uniform": UniformTokens(),
        "framedrop": FrameDrop(),
        "adatp+repframes": AdaTP(representative_frames=1),
    }
)
"""Every method with its defaults; other options are given by passing the dataclass itself."""

PAPER_SETTINGS: MappingProxyType[tuple[str, float], Method] = MappingProxyType(
    {
        ("fastv", 2.0): FastV(layer=2, keep=0.50),
        ("fastv", 1.5): FastV(layer=2, keep=0.375),
        ("fastv", 1.0): FastV(layer=2, keep=0.25),
        ("dycoke", 2.0): DyCoke(prune=0.70),
        ("dycoke", 1.5): DyCoke(prune=0.90),
        ("dycoke", 1.0): DyCoke(prune=0.95),
    }
)
"""(name, p of the AdaTP column beside it) -> the baseline exactly as Table 1 runs it, for every model."""

PAPER_VISIONZIP_TOKENS: MappingProxyType[tuple[str, float], int] = MappingProxyType(
    {
        ("ov-7b", 2.0): 89,
        ("ov-7b", 1.5): 75,
        ("ov-7b", 1.0): 52,
        ("ov-0.5b", 2.0): 85,
        ("ov-0.5b", 1.5): 75,
        ("ov-0.5b", 1.0): 61,
        ("lv-7b", 2.0): 77,
        ("lv-7b", 1.5): 64,
        ("lv-7b", 1.0): 48,
    }
)
"""(model, p) -> VisionZip's tokens per frame that the paper's FLOPs imply; the paper does not state them."""


def resolve(method: str | Method) -> Method:
    """The method of that name, or the method itself."""
    if not isinstance(method, str):
        if not callable(getattr(method, "plan", None)):
            raise ValueError(f"expected a method's name or a method such as AdaTP(...), got {method!r}")
        return method
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}, expected one of {', '.join(METHODS)}")
    return METHODS[method]
