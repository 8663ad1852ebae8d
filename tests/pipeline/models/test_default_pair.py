"""What the default pair costs end to end, from the published configurations and the schedule."""

import pytest

import adatp
from adatp.flops import ratios, siglip_vision
from adatp.schedule import DEFAULT_START, budgets, default_end
from pipeline.config import DEFAULT_ENCODER, DEFAULT_MODEL
from tests.published.encoders import ENCODERS
from tests.published.llava import LLAVAS

N_FRAMES, C, TEXT = 32, 196, 150


def encoder_flops(name: str) -> float:
    vision = {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "intermediate_size": 3072,
        "image_size": 224,
        "patch_size": 16,
    }
    vision |= ENCODERS[name].config["vision_config"]
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    sizes = (vision["num_hidden_layers"], vision["hidden_size"], vision["intermediate_size"], vision["patch_size"])
    return adatp.tower_flops(adatp.TowerShape(*sizes, patches, has_head=True), N_FRAMES)


def end_to_end(encoder: str, n_segments: int, only_representatives: bool) -> float:
    decoder = LLAVAS[DEFAULT_MODEL].decoder
    head = decoder.hidden // decoder.heads
    shape = adatp.LLMShape(
        decoder.layers,
        decoder.hidden,
        decoder.hidden,
        head * decoder.key_heads,
        decoder.feed_forward,
        decoder.vocabulary,
    )
    counts = budgets(N_FRAMES * C, decoder.layers, 1.0, DEFAULT_START, default_end(decoder.layers))
    kept = [min(n, n_segments * C) if i >= DEFAULT_START or only_representatives else n for i, n in enumerate(counts)]
    tower = siglip_vision(adatp.TowerShape(26, 1152, 4304, 14, 729), shape)
    encoded = n_segments if only_representatives else N_FRAMES
    return ratios(shape, tower, kept, TEXT, N_FRAMES * C, N_FRAMES, encoded, encoder_flops(encoder)).end_to_end


def test_the_default_pair_saves_end_to_end() -> None:
    assert end_to_end(DEFAULT_ENCODER, 32, only_representatives=False) < 0.85  # nothing repeats: the worst clip
    assert end_to_end(DEFAULT_ENCODER, 8, only_representatives=True) < 0.45


def test_the_papers_own_encoder_would_cost_more_than_it_saves_at_this_size() -> None:
    assert end_to_end("google/siglip-so400m-patch14-384", 32, only_representatives=False) == pytest.approx(
        1.52, abs=0.02
    )
