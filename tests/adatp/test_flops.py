"""The analytic counter against torch's own, and against the paper's arithmetic."""

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import adatp
from adatp.families.llava_onevision import LlavaOnevision
from adatp.flops import (
    llm_prefill_flops,
    lm_head_flops,
    projector_flops,
    ratios,
    siglip_vision,
    tower_flops,
)

OV_7B = adatp.LLMShape(28, 3584, 3584, 512, 18944, 152_000)
SO400M = adatp.TowerShape(26, 1152, 4304, 14, 729)


def tower_shape(model: adatp.VideoLLM) -> adatp.TowerShape:
    assert isinstance(model.family, LlavaOnevision)
    return model.family.tower_shape


def counted(model: torch.nn.Module, *args: Tensor, **kwargs: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(*args, **kwargs)
    return counter.get_total_flops()


def test_the_decoder_equals_flop_counter_mode(onevision: adatp.VideoLLM) -> None:
    """On an eager model, where every product is visible; SDPA on a CPU would count as nothing."""
    decoder, n = onevision.decoder, 61
    implementation = decoder.config._attn_implementation
    try:
        decoder.set_attn_implementation("eager")
        theirs = counted(decoder, inputs_embeds=torch.randn(1, n, onevision.hidden_size))
    finally:
        decoder.set_attn_implementation(implementation)
    assert llm_prefill_flops(onevision.llm_shape, [n] * 8, "full") == pytest.approx(theirs, rel=0.01)
    head = counted(onevision.hf.lm_head, torch.randn(1, onevision.hidden_size))
    assert lm_head_flops(onevision.llm_shape) == pytest.approx(head, rel=0.01)


def test_the_pruned_prefill_equals_flop_counter_mode(onevision: adatp.VideoLLM, pixels: Tensor) -> None:
    """Linear layers of a real pruned run; CPU SDPA counts as nothing, and scoring's own products are taken off."""
    visual = onevision.encode(pixels)
    asked = adatp.Request("x", visual, "red", (5, 3, 8), method=adatp.DyCoke(prune=0.7), max_new_tokens=1)
    with FlopCounterMode(display=False) as counter:
        result = adatp.Engine(onevision).run([asked])["x"]
    tokens = [v + result.n_text_tokens for v in result.visual_tokens_per_layer]
    mine = llm_prefill_flops(onevision.llm_shape, tokens, "none") + lm_head_flops(onevision.llm_shape)
    assert counter.get_total_flops() == pytest.approx(mine, rel=0.01)


def test_tower_and_projector_equal_flop_counter_mode(onevision: adatp.VideoLLM, pixels: Tensor) -> None:
    tower, projector = onevision.hf.model.vision_tower, onevision.hf.model.multi_modal_projector
    implementation = tower.config._attn_implementation
    try:
        tower.set_attn_implementation("eager")
        theirs = counted(tower, pixels)
    finally:
        tower.set_attn_implementation(implementation)
    assert tower_flops(tower_shape(onevision), 16) == pytest.approx(theirs, rel=0.01)
    theirs = counted(projector, torch.randn(16, 25, 36))
    assert projector_flops(tower_shape(onevision), onevision.llm_shape, 16) == pytest.approx(theirs, rel=0.01)


def test_a_full_siglip_encoder_counts_its_head() -> None:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, image_size=64, patch_size=8
    )
    config._attn_implementation = "eager"
    model = SiglipVisionModel(config).eval()
    shape = adatp.TowerShape.of(config)
    assert shape.has_head
    theirs = counted(model, torch.randn(3, 3, 64, 64))
    assert tower_flops(shape, 3) == pytest.approx(theirs, rel=0.01)


def test_the_papers_ratio_is_the_formula_of_method_1_3() -> None:
    counts = [6272] * 2 + [2509] * 26
    expected = (sum(counts) + 28 * 130) / (28 * (6272 + 130))
    got = ratios(OV_7B, siglip_vision(SO400M, OV_7B), counts, 130, 6272, 32, 32)
    assert got.paper == pytest.approx(expected, abs=1e-12)
    assert got.with_attention < got.paper < got.end_to_end


def test_absolute_numbers_stand_where_the_published_ones_do() -> None:
    """so400m over 32 frames: 20.5 TFLOP; OV-7B's prefill of 6372 tokens: 99.5 TFLOP with attention as full squares."""
    assert tower_flops(SO400M, 32) == pytest.approx(20.5e12, rel=0.02)
    linear = llm_prefill_flops(OV_7B, [6372] * 28, "none")
    causal = llm_prefill_flops(OV_7B, [6372] * 28, "causal")
    full = llm_prefill_flops(OV_7B, [6372] * 28, "full")
    assert full - linear == pytest.approx(2 * (causal - linear), rel=0.001)
    assert full == pytest.approx(99.5e12, rel=0.005)


def test_a_segmentation_encoder_counts_against_pruning(onevision: adatp.VideoLLM, pixels: Tensor) -> None:
    visual = onevision.encode(pixels)
    base = {"visual": visual, "prompt": "red", "segments": (16,), "max_new_tokens": 1}
    without, with_it = (
        adatp.Engine(onevision).run([adatp.Request("x", encoder_flops=flops, **base)])["x"].flops  # type: ignore[arg-type]  # options as a dict
        for flops in (0.0, 1e9)
    )
    unpruned = tower_flops(tower_shape(onevision), 16) + projector_flops(
        tower_shape(onevision), onevision.llm_shape, 16
    )
    unpruned += llm_prefill_flops(onevision.llm_shape, [144 + 22] * 8, "full")
    assert with_it.end_to_end - without.end_to_end == pytest.approx(1e9 / unpruned, rel=0.05)
    assert with_it.paper == without.paper


def test_counts_of_another_depth_are_refused() -> None:
    with pytest.raises(ValueError, match="28 layers, got 2"):
        llm_prefill_flops(OV_7B, [5, 5], "none")
