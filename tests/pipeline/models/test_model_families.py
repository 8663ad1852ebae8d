"""A driver names the families that adatp has, without torch: the two lists are one."""

from adatp.families import FAMILIES
from adatp.families.lmms_lab import LmmsLab
from pipeline.models import checkpoints


def test_the_drivers_list_of_families_is_adatps() -> None:
    kinds = checkpoints.FAMILIES["model"]
    read = {family for kind in kinds for family in FAMILIES if family.reads({"model_type": kind})}
    assert read | {LmmsLab} == set(FAMILIES)
    assert len(kinds) == len(FAMILIES) - 1, "lmms-lab's layout is known by its tower instead"
