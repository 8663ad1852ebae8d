"""How many frames a model is shown, and which: the rules of lmms-eval's wrappers, read off the checkpoint."""

import json
from pathlib import Path


def read_config(folder: Path) -> dict[str, object] | None:
    """A checkpoint's config.json; None where there is none."""
    path = folder / "config.json"
    return dict(json.loads(path.read_text())) if path.is_file() else None


def is_llava_video(config: dict[str, object] | None) -> bool:
    """LLaVA-Video's checkpoints end every row of a frame in a newline."""
    return config is not None and config.get("mm_newline_position") == "grid"


def prompt_variant_of(config: dict[str, object] | None) -> str:
    """lmms-eval's name for the way this kind of model is prompted."""
    if is_llava_video(config):
        return "llava_vid"
    return "qwen3_vl" if config is not None and str(config.get("model_type")).startswith("qwen3_vl") else "default"


def frames_of(is_grid: bool) -> int:
    """lmms-eval's defaults, which the paper used: 20 frames of 182 tokens for LLaVA-Video, else 32."""
    return 20 if is_grid else 32


def sampling_of(n_frames: int, is_grid: bool) -> str:
    """linspace over all frames; LLaVA-Video's wrapper first tries one frame per second."""
    return f"uniform={n_frames}{',1fps' if is_grid else ''}"
