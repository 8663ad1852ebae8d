"""The families of Video LLMs this library runs: the one place where a family is named.

To add one, write a file here with a frozen dataclass that fulfils `adatp.families.family.ModelFamily`, and list it in
FAMILIES. It must end in an unmodified transformers model, whose decoder layers are those of `adatp.decoder` (pre-norm,
rotary, grouped queries, with or without q/k norm). It says how config.json is recognised, how weights load, how frames
become tokens, what text stands between them, where each row stands and what the tower costs. What a checkpoint asks for
and the family does not do is refused in `load`, by name: nothing is approximated. Then write a small checkpoint of the
published config under tests/published, and run the tests of tests/adatp/test_families.py on it: unpruned logits and
greedy tokens equal to transformers, dropping equal to masking, a ragged batch equal to each clip alone.
"""

from typing import Any

from adatp.families.family import ModelFamily
from adatp.families.internvl import InternVL
from adatp.families.llava_onevision import LlavaOnevision
from adatp.families.lmms_lab import LmmsLab
from adatp.families.qwen2_5_vl import Qwen25VL
from adatp.families.qwen3_vl import Qwen3VL
from adatp.families.smolvlm import SmolVLM
from adatp.weights import CheckpointError

FAMILIES: tuple[type[ModelFamily], ...] = (LmmsLab, LlavaOnevision, Qwen25VL, Qwen3VL, InternVL, SmolVLM)


def family_of(config: dict[str, Any]) -> type[ModelFamily]:
    """The family that reads this config.json. Raises CheckpointError for an architecture that none reads."""
    for family in FAMILIES:
        if family.reads(config):
            return family
    architectures = ", ".join(map(str, config.get("architectures") or ["no architectures"]))
    raise CheckpointError(
        f"unsupported architecture: config.json has model_type {config.get('model_type')!r} ({architectures}); "
        f"supported: {'; '.join(family.name for family in FAMILIES)}"
    )
