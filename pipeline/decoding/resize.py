"""Frames as a vision tower reads them, with Pillow, equal to transformers' own PIL image processors.

No torch here: the decode child imports this file. Rescaling and normalising are in pixels.py.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.types import ResizeRecipe

Frame = npt.NDArray[np.uint8]  # (H, W, 3)
_MAX_EDGE = 4096  # SmolVLM2's processors go no further
_MAX_PIXELS = 360 * 420  # of a Qwen frame: what Qwen's own examples ask of a video; eight clips of 32 are 116 MB
_MAX_FRAMES = 32  # of a clip, among which Qwen3-VL shares out its pixels


@dataclass(frozen=True)
class Normalisation:
    """pixel * scale, minus mean, over std, by channel. The numbers of a preprocessor_config.json."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: float = 1 / 255


def normalisation_from(preprocessor_config: dict[str, Any]) -> Normalisation:
    """Raises ValueError when the config does not say how."""
    config = preprocessor_config
    mean, std = config.get("image_mean"), config.get("image_std")
    if not config.get("do_normalize", True) or not mean or not std or len(mean) != 3 or len(std) != 3:
        raise ValueError(f"preprocessor config: expected image_mean and image_std of 3 numbers, got {mean!r}, {std!r}")
    scale = float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0
    return Normalisation(tuple(map(float, mean)), tuple(map(float, std)), scale)  # type: ignore[arg-type]  # 3 checked


def recipe_from(preprocessor_config: dict[str, Any]) -> ResizeRecipe:
    """The recipe in a preprocessor_config.json of SigLIP, CLIP, LLaVA-OneVision, InternVL3, SmolVLM2 or Qwen-VL.

    Raises ValueError.
    """
    config = preprocessor_config
    if "merge_size" in config:
        return _qwen_recipe(config)
    if "max_image_size" in config:
        return _smolvlm_recipe(config)
    size, crop = config.get("size"), config.get("crop_size")
    if isinstance(size, int):  # the oldest CLIP configs
        size = {"shortest_edge": size} if config.get("do_center_crop") else {"height": size, "width": size}
    if isinstance(crop, int):
        crop = {"height": crop, "width": crop}
    if not isinstance(size, dict) or not config.get("do_resize", True):
        raise ValueError(f"preprocessor config: expected do_resize and a size, got {config.get('size')!r}")
    resample = int(config.get("resample", 3))
    if "height" in size and "width" in size and not config.get("do_center_crop"):
        return ResizeRecipe(int(size["height"]), int(size["width"]), resample)
    if set(size) == {"shortest_edge"} and config.get("do_center_crop") and isinstance(crop, dict):
        edge = int(size["shortest_edge"])
        if min(crop["height"], crop["width"]) <= edge >= max(crop["height"], crop["width"]):
            return ResizeRecipe(int(crop["height"]), int(crop["width"]), resample, edge)
    raise ValueError(
        "preprocessor config: expected size {height, width} without centre crop, or size {shortest_edge} with a crop "
        f"that fits in it, got size {size!r}, do_center_crop {config.get('do_center_crop')!r}, crop_size {crop!r}"
    )


def _smolvlm_recipe(config: dict[str, Any]) -> ResizeRecipe:
    """SmolVLM2's way with the frames of a video: no tiles, aspect not kept in the end.

    The first longest edge is the one for videos where the config names it, as published checkpoints do.
    """
    size, square = config.get("video_sampling", {}).get("video_size", config.get("size")), config["max_image_size"]
    first, side = (x.get("longest_edge") if isinstance(x, dict) else None for x in (size, square))
    if not (isinstance(first, int) and isinstance(side, int) and config.get("do_resize", True)):
        raise ValueError(
            "preprocessor config: expected do_resize and a longest_edge in video_sampling.video_size and in "
            f"max_image_size, got {size!r} and {square!r}"
        )
    return ResizeRecipe(side, side, int(config.get("resample", 1)), longest_edge=min(first, _MAX_EDGE))


def _qwen_recipe(config: dict[str, Any]) -> ResizeRecipe:
    """Qwen2.5-VL bounds the pixels of a frame; Qwen3-VL's video config those of all frames together."""
    size = config.get("size") or {}
    least = config.get("min_pixels", size.get("shortest_edge"))
    most = config.get("max_pixels", size.get("longest_edge"))
    numbers = (config.get("patch_size"), config["merge_size"], least, most)
    if not all(isinstance(x, int) and x > 0 for x in numbers) or not config.get("do_resize", True):
        raise ValueError(
            "preprocessor config: expected do_resize, a patch_size, a merge_size and bounds in min_pixels and "
            f"max_pixels or in size, got {', '.join(map(repr, numbers))}"
        )
    patch, merge, least, most = map(int, numbers)
    side = patch * merge
    if config.get("video_processor_type") == "Qwen3VLVideoProcessor":
        least, most = side * side, most // _MAX_FRAMES
    most = min(most, _MAX_PIXELS)
    square = max(1, math.isqrt(most) // side) * side
    return ResizeRecipe(
        square, square, int(config.get("resample", 3)), multiple_of=side, min_pixels=least, max_pixels=most
    )


def for_frames_of(size: tuple[int, int], recipe: ResizeRecipe) -> ResizeRecipe:
    """The recipe for frames of this (width, height): where it keeps their aspect, with the sides that this gives."""
    side = recipe.multiple_of
    if side is None:
        return recipe
    width, height = size
    sides = [round(length / side) * side for length in size]
    if math.prod(sides) > recipe.max_pixels:
        shrink = math.sqrt(width * height / recipe.max_pixels)
        sides = [math.floor(length / shrink / side) * side for length in size]
    elif math.prod(sides) < recipe.min_pixels:
        grow = math.sqrt(recipe.min_pixels / (width * height))
        sides = [math.ceil(length * grow / side) * side for length in size]
    fitted_width, fitted_height = (max(side, length) for length in sides)
    return replace(recipe, height=fitted_height, width=fitted_width, multiple_of=None)


def resize(frame: Frame, recipe: ResizeRecipe) -> Frame:
    """(H, W, 3) uint8 RGB -> (height, width, 3) of the recipe."""
    return resize_image(Image.fromarray(frame), recipe)


def resize_image(image: Image.Image, recipe: ResizeRecipe) -> Frame:
    """`resize` for a frame that is a Pillow image already."""
    recipe = for_frames_of(image.size, recipe)
    filter_ = Image.Resampling(recipe.resample)
    if recipe.longest_edge is not None:
        image = image.resize(_aspect_kept(image.size, recipe.longest_edge), filter_)
    if recipe.shortest_edge is None:
        return np.asarray(image.resize((recipe.width, recipe.height), filter_))
    short, edge = min(image.size), recipe.shortest_edge
    width, height = (edge if side == short else int(edge * side / short) for side in image.size)
    left, top = (width - recipe.width) // 2, (height - recipe.height) // 2
    return np.asarray(image.resize((width, height), filter_))[top : top + recipe.height, left : left + recipe.width]


def _aspect_kept(size: tuple[int, int], edge: int) -> tuple[int, int]:
    """(width, height) with `edge` the longer; the other rounded down, then up to an even number."""
    width, height = size
    if width >= height:
        other = int(edge / (width / height))
        return edge, max(1, other + other % 2)
    other = int(edge * (width / height))
    return max(1, other + other % 2), edge
