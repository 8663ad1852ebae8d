"""A checkpoint's folder and the weights in it: safetensors only, every tensor has a place and every place a tensor."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig


class CheckpointError(Exception):
    """Not a checkpoint this library reads; the message says what was found and what was expected."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder with a config.json, and how to load it.

    Attributes:
        config: config.json as it stands.
        tensors: weights by the names of the folder's files, in place of those files; see `load`.
    """

    folder: Path
    config: dict[str, Any]
    dtype: torch.dtype
    tensors: Mapping[str, Tensor] | None

    @classmethod
    def of(cls, path: str | Path, dtype: torch.dtype, tensors: Mapping[str, Tensor] | None) -> "Checkpoint":
        folder = Path(path)
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"expected a local folder with config.json, got {str(path)!r}")
        if tensors is None and not list(folder.glob("*.safetensors")):
            raise CheckpointError(
                f"expected *.safetensors in {str(path)!r}, found {sorted(p.name for p in folder.iterdir())}"
            )
        return cls(folder, json.loads((folder / "config.json").read_text()), dtype, tensors)

    def transformers_config(self) -> Any:
        """config.json as transformers reads it: no remote code, nothing fetched."""
        return AutoConfig.from_pretrained(self.folder, local_files_only=True, trust_remote_code=False)

    def build(self, model_class: Any, config: Any, renamed: Mapping[str, Tensor] | None = None) -> Any:
        """An instance of a transformers class with these weights; `renamed` are weights under that class's names."""
        tensors = self.tensors if renamed is None else renamed
        model, report = model_class.from_pretrained(
            self.folder if tensors is None else None,
            config=config,
            state_dict=None if tensors is None else dict(tensors),
            dtype=self.dtype,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they reach the report with the other keys, instead of a bare raise
        )
        self._refuse_differences(report)
        return model

    def read(self) -> dict[str, Tensor]:
        """All tensors by the names of the files."""
        if self.tensors is not None:
            return dict(self.tensors)
        tensors: dict[str, Tensor] = {}
        for file in sorted(self.folder.glob("*.safetensors")):
            with safe_open(file, framework="pt") as opened:
                tensors.update({name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118  not a dict
        return tensors

    def _refuse_differences(self, report: dict[str, Any]) -> None:
        kinds = {"missing": "missing_keys", "surplus": "unexpected_keys", "wrongly shaped": "mismatched_keys"}
        found = {kind: sorted(map(str, report[key])) for kind, key in kinds.items() if report[key]}
        if found:
            listing = "; ".join(f"{len(keys)} {kind}: {', '.join(keys[:8])}" for kind, keys in found.items())
            raise CheckpointError(f"{str(self.folder)!r} does not fit its own configuration: {listing}")


def shapes(headers: Mapping[str, tuple[int, ...]], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Tensors that have a shape and no memory, for `load(tensors=...)`: each is a single zero seen many times."""
    return {name: torch.zeros((), dtype=dtype).expand(shape) for name, shape in headers.items()}
