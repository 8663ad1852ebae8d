"""Recomputed score rows equal the rows of transformers' eager attention."""

import pytest
import torch
from torch import Tensor

import adatp
from adatp.decoder import project, rope
from adatp.scores import attention_received


@pytest.mark.parametrize("n_rows", [1, 7])
def test_rows_equal_eager_attention(onevision: adatp.VideoLLM, n_rows: int) -> None:
    """6 heads on 2 key heads: softmax per head over the causal row, then the mean; visual columns 5..39."""
    torch.manual_seed(5)
    embeddings = torch.randn(53, onevision.hidden_size)
    decoder = onevision.decoder
    implementation = decoder.config._attn_implementation
    try:
        decoder.set_attn_implementation("eager")
        out = decoder(inputs_embeds=embeddings[None], output_attentions=True, output_hidden_states=True)
    finally:
        decoder.set_attn_implementation(implementation)
    for index in (0, 3, 7):
        query, key, _ = project(
            decoder.layers[index], out.hidden_states[index][0], rope(decoder, embeddings, torch.arange(53)[None])
        )
        got = attention_received(query[-n_rows:], key, torch.arange(5, 40), decoder.layers[index].self_attn.scaling)
        eager = out.attentions[index][0]  # (heads, 53, 53)
        torch.testing.assert_close(got, eager[:, -n_rows:, 5:40].mean((0, 1)), rtol=1e-4, atol=1e-7)
        assert got.max() > 2 * got.min(), "flat attention proves nothing"


def test_scores_are_fp32_whatever_the_dtype() -> None:
    """Logits of 300 and more, where half precision rounds neighbours together."""
    torch.manual_seed(1)
    query, key = (20 * torch.randn(n, 2, 8) for n in (3, 30))
    half: list[Tensor] = [x.bfloat16() for x in (query, key)]
    got = attention_received(half[0], half[1], torch.arange(2, 20), 8**-0.5)
    exact = attention_received(half[0].double(), half[1].double(), torch.arange(2, 20), 8**-0.5)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, exact.float(), rtol=1e-3, atol=1e-6)
