"""LLaVA in its published layouts: the numbers in effect, logits and greedy tokens of transformers' own classes."""

from pathlib import Path
from typing import Any

import pytest
import torch

import adatp
from adatp.prompt import NO_VIDEO_TOKEN
from tests.published.llava import LLAVAS, effective_config, write_llava

IGNORED = {  # labels and training; what decides arithmetic is compared
    *("dtype", "torch_dtype", "transformers_version", "architectures", "_name_or_path", "pad_token_id", "id2label"),
    *("label2id", "ignore_index", "use_image_newline_parameter"),
}


def numbers(config: Any) -> dict[str, Any]:
    """Every number of a configuration, flat."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, values: dict[str, Any]) -> None:
        for key, value in values.items():
            if key in IGNORED:
                continue
            if isinstance(value, dict):
                walk(f"{prefix}{key}.", value)
            else:
                flat[prefix + key] = value

    walk("", config.to_dict())
    flat.pop("text_config.tie_word_embeddings")  # the one above it decides, and is compared
    return flat


@pytest.mark.parametrize("name", LLAVAS)
@torch.inference_mode()
def test_a_published_layout_says_what_transformers_own_class_says(name: str, tmp_path: Path) -> None:
    theirs = write_llava(tmp_path, name)
    ours = adatp.load(tmp_path)
    is_grid = LLAVAS[name].newline == "grid"
    assert ours.tokens_per_frame == (182 if is_grid else 196)
    assert ours.stop_token_ids >= {151645}
    expected = effective_config(name)
    if LLAVAS[name].newline is not None:  # no token for pictures, so none to name
        expected.image_token_index, expected.video_token_index = ours.hf.config.image_token_index, 151647
        ours.hf.config.video_token_index = 151647
    assert numbers(ours.hf.config) == numbers(expected)

    pixels = torch.randn(2, 3, 384, 384, generator=torch.Generator().manual_seed(3))
    visual = ours.encode(pixels)
    if not is_grid:
        truth = theirs.model.get_video_features(pixels[None]).pooler_output[0][:-1]
        torch.testing.assert_close(visual.tokens.flatten(0, 1), truth, rtol=1e-4, atol=1e-4)
    prompt = "what colour is the red circle"
    ids = torch.tensor([ours.prompt_ids(prompt, visual)])
    place = ids[0] == ours.prompt.video_token_id
    embeddings = theirs.get_input_embeddings()(ids.clamp_min(0))
    filled = visual.tokens.flatten(0, 1)
    embeddings[0, place] = filled if is_grid else torch.cat([filled, theirs.model.image_newline[None]])
    truth = theirs.generate(
        inputs_embeds=embeddings,
        attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.long),
        max_new_tokens=6,
        do_sample=False,
        eos_token_id=sorted(ours.stop_token_ids),
        return_dict_in_generate=True,
        output_logits=True,
    )
    request = adatp.Request("clip", visual, prompt, (1, 1), method="none", max_new_tokens=6)
    tokens = adatp.Engine(ours).run([request])["clip"].token_ids
    theirs_tokens = [t for t in truth.sequences[0].tolist() if t not in ours.stop_token_ids]
    assert list(tokens) == theirs_tokens
    logits = ours.hf(inputs_embeds=embeddings).logits[0, -1]
    torch.testing.assert_close(logits, truth.logits[0][0], rtol=1e-4, atol=1e-4)


def test_lmms_labs_prompt_is_qwen_1_5_and_llava_hfs_its_template(tmp_path: Path) -> None:
    write_llava(tmp_path / "lmms", "lmms-lab/LLaVA-Video-7B-Qwen2")
    write_llava(tmp_path / "hf", "llava-hf/llava-onevision-qwen2-0.5b-ov-hf")
    lmms, hf = adatp.load(tmp_path / "lmms").prompt, adatp.load(tmp_path / "hf").prompt
    assert lmms.video_token_id == NO_VIDEO_TOKEN
    assert hf.video_token_id == 151647
    texts = [p.tokenizer.decode([i for i in p.ids("what is this") if i >= 0]) for p in (lmms, hf)]
    end, system = "<|im_end|>", "You are a helpful assistant."
    said = "what is this"
    assert texts == [
        f"<|im_start|>system\n{system}{end}\n<|im_start|>user\n\n{said}{end}\n<|im_start|>assistant\n",
        f"<|im_start|>system \n{system}{end}<|im_start|>user <video>\n{said}{end}<|im_start|>assistant\n",
    ]
