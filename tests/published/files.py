"""Random weights, written as published: dtype, shards, index, key names."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Weights large enough that attention is far from uniform; norms near one, so that epsilons still matter little."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, weight.shape[-1] ** -0.5 * (1.7 if "proj" in name else 1.0), generator=generator)
            elif "norm" in name and name.endswith("weight"):
                weight.uniform_(0.5, 1.5, generator=generator)
            else:
                weight.normal_(0, 0.3, generator=generator)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n")


def write_weights(folder: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype, n_shards: int = 1) -> None:
    """`model.safetensors`, or `n_shards` files and `model.safetensors.index.json`. Integers keep their dtype."""
    cast = {name: (t.to(dtype) if t.is_floating_point() else t).contiguous().clone() for name, t in tensors.items()}
    if n_shards == 1:
        save_file(cast, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = list(cast)
    parts = [names[i::n_shards] for i in range(n_shards)]
    files = [f"model-{i + 1:05d}-of-{n_shards:05d}.safetensors" for i in range(n_shards)]
    for file, part in zip(files, parts, strict=True):
        save_file({name: cast[name] for name in part}, folder / file, metadata={"format": "pt"})
    total = sum(t.numel() * t.element_size() for t in cast.values())
    places = {name: file for file, part in zip(files, parts, strict=True) for name in part}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    write_json(folder / "model.safetensors.index.json", index)
