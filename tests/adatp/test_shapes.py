"""A checkpoint checked by the names and shapes of its tensors: the loader itself, without the weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

import adatp
from tests.adatp.checkpoints import write_lmms_lab, write_onevision


def headers(folder: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  not a dict


@pytest.mark.parametrize("write", [write_onevision, write_lmms_lab])
def test_shapes_alone_say_whether_the_weights_would_load(write: Callable[..., Path], tmp_path: Path) -> None:
    found = headers(write(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    assert adatp.load(tmp_path, tensors=adatp.shapes(found)).n_layers == 8
    name = next(name for name in found if name.endswith("layers.3.mlp.up_proj.weight"))
    missing = {other: shape for other, shape in found.items() if other != name}
    for broken, says in ((missing, "1 missing"), ({**found, name: (7, 5)}, "1 wrongly shaped")):
        with pytest.raises(adatp.CheckpointError, match=says):
            adatp.load(tmp_path, tensors=adatp.shapes(broken))


def test_shapes_take_no_memory() -> None:
    huge: dict[str, Any] = adatp.shapes({"a": (152064, 8192), "b": ()})
    assert huge["a"].untyped_storage().nbytes() == 4
    assert huge["b"].shape == ()
