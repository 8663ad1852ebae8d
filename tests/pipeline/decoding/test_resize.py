"""Pixels as transformers' own PIL image processors give them."""

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from adatp.families.qwen_vl import patchify
from pipeline.decoding.resize import for_frames_of, normalisation_from, recipe_from, resize
from pipeline.models.pixels import normalise
from pipeline.types import ResizeRecipe
from tests.published import internvl, qwen_vl, smolvlm

SIZES = [(48, 64), (64, 48), (360, 641), (37, 223), (224, 224), (17, 500)]
CONFIGS = {
    "siglip": (SiglipImageProcessorPil, {"size": {"height": 384, "width": 384}, "resample": 3}),
    "siglip-bilinear": (SiglipImageProcessorPil, {"size": {"height": 96, "width": 128}, "resample": 2}),
    "clip": (CLIPImageProcessorPil, {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}),
    "clip-crop": (CLIPImageProcessorPil, {"size": {"shortest_edge": 101}, "crop_size": {"height": 88, "width": 95}}),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("size", SIZES)
def test_equal_to_the_processor_of_the_encoder(name: str, size: tuple[int, int]) -> None:
    kind, options = CONFIGS[name]
    processor = kind(**options)
    config = processor.to_dict()
    frame = np.random.default_rng(5).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = processor(images=[frame], return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    resized = resize(frame, recipe_from(config))
    ours = normalise(torch.from_numpy(np.stack([resized])), normalisation_from(config))
    torch.testing.assert_close(ours, expected.float(), rtol=0, atol=2e-6)


def test_equal_to_llava_onevision_on_video_frames() -> None:
    """A video frame is resized whole to 384 x 384: the processor's first, base patch of a single image."""
    processor = LlavaOnevisionImageProcessorPil(image_grid_pinpoints=[[384, 384]])
    frame = np.random.default_rng(6).integers(0, 256, (270, 480, 3), dtype=np.uint8)
    expected = processor(images=[frame], return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    config = processor.to_dict()
    ours = normalise(torch.from_numpy(resize(frame, recipe_from(config))[None].copy()), normalisation_from(config))
    torch.testing.assert_close(ours[0], expected[0][0].float(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", SIZES)
def test_equal_to_internvl_on_video_frames(size: tuple[int, int]) -> None:
    """A frame is resized whole to 448 x 448, never cut into tiles."""
    processor = GotOcr2ImageProcessorPil(**internvl.PREPROCESSOR)
    frame = np.random.default_rng(7).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = processor(images=[frame], return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    config = internvl.VIDEO_PREPROCESSOR
    ours = normalise(torch.from_numpy(resize(frame, recipe_from(config))[None].copy()), normalisation_from(config))
    torch.testing.assert_close(ours, expected.float(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", SIZES)
def test_internvls_video_processor_rounds_otherwise(size: tuple[int, int]) -> None:
    """transformers' InternVLVideoProcessor, transcribed: torchvision's resize of uint8 is torch's own.

    Of noise, the worst there is, one value in a hundred is another level, and hardly one in 50,000 differs by two.
    """
    frame = np.random.default_rng(8).integers(0, 256, (*size, 3), dtype=np.uint8)
    planes = torch.from_numpy(frame).permute(2, 0, 1)[None]
    theirs = functional.interpolate(planes, (448, 448), mode="bicubic", antialias=True, align_corners=False)
    ours = resize(frame, recipe_from(internvl.VIDEO_PREPROCESSOR))
    difference = (torch.from_numpy(ours.copy()).int() - theirs[0].permute(1, 2, 0).int()).abs()
    assert difference.max() <= 2
    assert (difference > 0).float().mean() < 0.01
    assert (difference > 1).float().mean() < 2e-5


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", [512, 384])
def test_equal_to_smolvlm_on_video_frames(side: int, size: tuple[int, int]) -> None:
    """Twice resized: to a longest edge, aspect kept and sides even, then to the square. No tiles."""
    config = smolvlm.preprocessor(side)
    sampled = config["video_sampling"]["video_size"]
    processor = SmolVLMImageProcessorPil(**config | {"do_image_splitting": False, "size": sampled})
    frame = np.random.default_rng(9).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = processor(images=[[frame]], return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    ours = normalise(torch.from_numpy(resize(frame, recipe_from(config))[None].copy()), normalisation_from(config))
    torch.testing.assert_close(ours, expected[0].float(), rtol=0, atol=2e-6)


def test_a_recipe_of_an_older_index_has_the_fingerprint_it_had() -> None:
    assert repr(ResizeRecipe(384, 384, 3)) == "ResizeRecipe(height=384, width=384, resample=3, shortest_edge=None)"


def test_numbers_come_from_the_config() -> None:
    assert recipe_from({"size": {"height": 384, "width": 378}, "resample": 2}) == ResizeRecipe(384, 378, 2)
    old = {"size": 224, "crop_size": 224, "do_center_crop": True, "resample": 3}
    assert recipe_from(old) == ResizeRecipe(224, 224, 3, 224)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"size": {"longest_edge": 384}},
        {"size": {"longest_edge": 384}, "max_image_size": {"longest_edge": None}},
        {"size": {"height": 384, "width": 384}, "max_image_size": {"longest_edge": 384}},
        {"size": {"shortest_edge": 224}},
        {"size": {"height": 224, "width": 224}, "do_resize": False},
        {"size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": {"height": 336, "width": 336}},
    ],
)
def test_a_config_it_cannot_follow_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="preprocessor config: expected"):
        recipe_from(config)


QWEN = {
    "qwen2.5": (qwen_vl.PREPROCESSORS["qwen2_5_vl"], 28, 3136),
    "qwen3": (qwen_vl.VIDEO_PREPROCESSOR, 32, 32 * 32),
}


@pytest.mark.parametrize("name", QWEN)
@pytest.mark.parametrize("size", [*SIZES, (1080, 1920), (2160, 3840), (720, 1280), (9, 14), (240, 320)])
def test_qwens_frames_keep_their_shape(name: str, size: tuple[int, int]) -> None:
    """transformers' own sides, at most 360 * 420 pixels of them."""
    config, side, least = QWEN[name]
    recipe = for_frames_of(size[::-1], recipe_from(config))
    height, width = (max(side, length) for length in smart_resize(*size, side, least, 360 * 420))
    assert (recipe.height, recipe.width) == (height, width)
    assert recipe.height % side == recipe.width % side == 0
    assert for_frames_of((1, 1), recipe) == recipe, "the sides are settled by the first frame"


@pytest.mark.parametrize("name", QWEN)
def test_equal_to_qwens_processor(name: str) -> None:
    """Pixels and their order in patches; a still picture counts as two equal frames."""
    config, side, least = QWEN[name]
    bounds = {"min_pixels": least, "max_pixels": 360 * 420}
    numbers = {
        key: config[key] for key in ("patch_size", "merge_size", "temporal_patch_size", "image_mean", "image_std")
    }
    processor = Qwen2VLImageProcessorPil(**numbers, **bounds)
    frame = np.random.default_rng(9).integers(0, 256, (360, 641, 3), dtype=np.uint8)
    expected = processor(images=[frame], return_tensors="pt", input_data_format="channels_last")
    resized = resize(frame, recipe_from(config))
    assert resized.shape[:2] == tuple(expected["image_grid_thw"][0, 1:] * config["patch_size"])
    pixels = normalise(torch.from_numpy(np.stack([resized, resized])), normalisation_from(config))
    ours = patchify(pixels, side // 2, 2, 2)
    torch.testing.assert_close(ours[0], expected["pixel_values"].float(), rtol=0, atol=2e-6)


def test_qwens_bounds_are_read_from_either_spelling() -> None:
    spelled = {"merge_size": 2, "patch_size": 14, "min_pixels": 3136, "max_pixels": 12845056}
    by_size = {"merge_size": 2, "patch_size": 14, "size": {"shortest_edge": 3136, "longest_edge": 12845056}}
    assert (
        recipe_from(spelled)
        == recipe_from(by_size)
        == ResizeRecipe(364, 364, 3, multiple_of=28, min_pixels=3136, max_pixels=151200)
    )
    with pytest.raises(ValueError, match="expected do_resize, a patch_size, a merge_size and bounds"):
        recipe_from({"merge_size": 2, "patch_size": 14, "min_pixels": 3136})
