"""InternVL3 and 3.5 and SmolVLM2, whose video is a row of images with text between them, on their published layouts.

The reference is transformers' own model and processors: the same ids, features, logits and greedy tokens.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import InternVLConfig, InternVLForConditionalGeneration, SmolVLMConfig
from transformers.models.internvl.processing_internvl import InternVLProcessor
from transformers.models.smolvlm import processing_smolvlm
from transformers.models.smolvlm.processing_smolvlm import DEFAULT_CHAT_TEMPLATE, SmolVLMProcessor
from transformers.video_utils import VideoMetadata

import adatp
from adatp.engine import clip_of, layout_of
from adatp.families.internvl import InternVL
from adatp.families.smolvlm import in_words
from adatp.methods import resolve
from adatp.prefill import embed, prefill
from tests.adatp.masking import masked_greedy
from tests.published import internvl, smolvlm
from tests.published.files import write_weights
from tests.published.internvl import write_internvl
from tests.published.smolvlm import write_smolvlm

PROMPT = "what is this in red?"
TIMES = (0.0, 1.04, 2.5, 3.0, 64.9)
SEGMENTS, RELEVANCE = (2, 2, 1), (0.2, 0.01, 0.04)
CHECKPOINTS: dict[str, Callable[[Path, str], torch.nn.Module]] = {
    "OpenGVLab/InternVL3-1B-hf": write_internvl,
    "OpenGVLab/InternVL3-38B-hf": write_internvl,
    "OpenGVLab/InternVL3_5-2B-HF": write_internvl,
    "HuggingFaceTB/SmolVLM2-256M-Video-Instruct": write_smolvlm,
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct": write_smolvlm,
}
SMALLEST = ("OpenGVLab/InternVL3-1B-hf", "HuggingFaceTB/SmolVLM2-256M-Video-Instruct")


@dataclass(frozen=True, eq=False)
class Loaded:
    """A checkpoint, transformers' model that its files were written from, and a clip."""

    folder: Path
    model: adatp.VideoLLM
    theirs: Any
    pixels: Tensor

    def copy(self, into: Path, weights: bool = True) -> Path:
        """The same files, to change one of them: links to the originals."""
        for file in self.folder.iterdir():
            if weights or file.suffix != ".safetensors":
                (into / file.name).symlink_to(file)
        return into

    @property
    def is_internvl(self) -> bool:
        return isinstance(self.model.family, InternVL)

    def encode(self) -> adatp.Visual:
        return self.model.encode(self.pixels, TIMES, visionzip=True)

    def inputs(self, visual: adatp.Visual) -> dict[str, Tensor]:
        """What transformers' forward and generate take; SmolVLM2's clips are a batch of one."""
        pixels = self.pixels if self.is_internvl else self.pixels[None]
        return {"input_ids": torch.tensor([self.model.prompt_ids(PROMPT, visual)]), "pixel_values": pixels}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Loaded]:
    made: dict[str, Loaded] = {}

    def load(name: str) -> Loaded:
        if name not in made:
            folder = tmp_path_factory.mktemp("published") / name.split("/")[1]
            theirs = CHECKPOINTS[name](folder, name)
            model = adatp.load(folder)
            generator = torch.Generator().manual_seed(11)
            pixels = torch.randn(3, 3, *model.frame_size, generator=generator)[[0, 0, 1, 1, 2]]
            made[name] = Loaded(folder, model, theirs, pixels + 0.3 * torch.randn(pixels.shape, generator=generator))
        return made[name]

    return load


def request(visual: adatp.Visual, **options: Any) -> adatp.Request:
    defaults = {"prompt": PROMPT, "segments": SEGMENTS, "relevance": RELEVANCE, "max_new_tokens": 8, "trace": True}
    return adatp.Request("clip", visual, **(defaults | options))


def prefill_logits(model: adatp.VideoLLM, asked: adatp.Request) -> Tensor:
    clip = clip_of(asked, model)
    return prefill(model, [embed(model, layout_of(asked, clip, model), clip, resolve(asked.method).plan(clip))])[
        0
    ].logits


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_unpruned_logits_and_greedy_tokens_are_transformers(name: str, loaded: Callable[[str], Loaded]) -> None:
    """Against the model the files were written from: what loading changed would show as well."""
    it = loaded(name)
    visual = it.encode()
    inputs = it.inputs(visual)
    with torch.inference_mode():
        features = it.theirs.get_image_features(inputs["pixel_values"]).pooler_output
        logits = it.theirs(**inputs, logits_to_keep=1).logits[0, -1]
        tokens = it.theirs.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    torch.testing.assert_close(visual.tokens.flatten(0, -2), torch.cat(list(features)), rtol=1e-4, atol=1e-4)
    asked = request(visual, method="none")
    torch.testing.assert_close(prefill_logits(it.model, asked), logits, rtol=1e-4, atol=1e-4)
    mine = adatp.Engine(it.model).run([asked])["clip"]
    assert list(mine.token_ids) == [t for t in tokens.tolist() if t not in it.model.stop_token_ids]
    assert len(set(mine.token_ids)) > 2, "a model that repeats one token proves nothing"


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_prompt_is_the_processors(name: str, loaded: Callable[[str], Loaded], monkeypatch: Any) -> None:
    """The processors' own expansion of a video, run on a stub: the whole class needs torchvision, or num2words."""
    it = loaded(name)
    tok, c = it.model.prompt.tokenizer, it.model.tokens_per_frame
    n = len(it.pixels)
    turns = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": PROMPT}]}]
    if it.is_internvl:
        processor = SimpleNamespace(
            start_image_token="<img>", end_image_token="</img>", image_token="<IMG_CONTEXT>", image_seq_length=c
        )
        spelled = InternVLProcessor.replace_video_token(processor, {"pixel_values_videos": [it.pixels]}, 0)
        rendered = tok.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    else:
        monkeypatch.setattr(processing_smolvlm, "num2words", {n: "five"}.get)
        processor = SimpleNamespace(
            fake_image_token="<fake_token_around_image>",
            global_image_token="<global-img>",
            image_token="<image>",
            image_seq_len=c,
        )
        indices = [round(100 * time) for time in TIMES]
        metadata = VideoMetadata(total_num_frames=9000, fps=100.0, frames_indices=indices, duration=None)
        inputs = {"pixel_values": it.pixels[None], "video_metadata": [metadata]}
        spelled = SmolVLMProcessor.replace_video_token(processor, inputs, 0)
        rendered = tok.apply_chat_template(
            turns, chat_template=DEFAULT_CHAT_TEMPLATE, tokenize=False, add_generation_prompt=True
        )
    theirs = tok(rendered.replace("<video>", spelled), add_special_tokens=False).input_ids
    assert it.model.prompt_ids(PROMPT, it.encode()) == theirs


def test_what_the_prompt_says_of_a_frame(loaded: Callable[[str], Loaded]) -> None:
    counted = loaded(SMALLEST[0])
    text = counted.model.prompt.tokenizer.decode(counted.model.prompt_ids(PROMPT, counted.encode()[[1, 4]]))
    shown = "<img>" + "<IMG_CONTEXT>" * 256 + "</img>\n"
    assert text == f"<|im_start|>user\nFrame1: {shown}Frame2: {shown}{PROMPT}<|im_end|>\n<|im_start|>assistant\n"
    timed = loaded(SMALLEST[1])
    text = timed.model.prompt.tokenizer.decode(timed.model.prompt_ids(PROMPT, timed.encode()[[1, 4]]))
    assert text.startswith("<|im_start|>User: You are provided the following series of two frames from a 0:01:04 ")
    clocks = re.findall(r"\nFrame from (\d\d:\d\d):<fake_token_around_image><global-img>(?:<image>){64}<fake", text)
    assert clocks == ["00:01", "01:04"]
    assert text.endswith(f"<fake_token_around_image>\n\n{PROMPT}<end_of_utterance>\nAssistant:")


@pytest.mark.parametrize("name", SMALLEST)
def test_the_text_that_ranks_begins_after_the_videos_last_control_token(
    name: str, loaded: Callable[[str], Loaded]
) -> None:
    it = loaded(name)
    visual = it.encode()
    layout = it.model.lay_out(PROMPT, visual.n_steps, visual, visual.times_s)
    text = it.model.prompt.tokenizer.decode(layout.ids[-layout.n_after :])
    turn = f"\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n"
    assert text == (turn if it.is_internvl else f"\n\n{PROMPT}<end_of_utterance>\nAssistant:")


@pytest.mark.parametrize("name", SMALLEST)
@pytest.mark.parametrize(
    "method",
    [adatp.AdaTP(), adatp.FastV(layer=3, keep=0.3), adatp.Onsets(refresh=3), adatp.AdaTP(representative_frames=1)],
    ids=repr,
)
def test_dropping_equals_masking_the_same_tokens(name: str, method: Any, loaded: Callable[[str], Loaded]) -> None:
    """Text between the frames is seen in every layer of the reference, whatever was dropped around it."""
    it = loaded(name)
    visual = it.encode()
    dropped = adatp.Engine(it.model).run([request(visual, method=method, max_new_tokens=5)])["clip"]
    assert dropped.kept is not None
    assert len(dropped.kept[-1]) < visual.tokens.shape[:2].numel() / 2
    masked = masked_greedy(it.model, visual, PROMPT, dropped.kept, n_tokens=5)
    assert list(dropped.token_ids) == masked


@pytest.mark.parametrize("name", SMALLEST)
def test_text_between_the_frames_outlives_every_method(name: str, loaded: Callable[[str], Loaded]) -> None:
    it = loaded(name)
    visual = it.encode()
    for method in adatp.METHODS:
        asked = request(visual, method=method)
        clip = clip_of(asked, it.model)
        layout, plan = layout_of(asked, clip, it.model), resolve(method).plan(clip)
        sequence = embed(it.model, layout, clip, plan)
        done = prefill(it.model, [sequence])[0]
        is_text = torch.ones(len(layout.ids), dtype=torch.bool)
        is_text[layout.visual] = False
        assert done.n_other == int(is_text.sum()) > len(layout.ids) - len(layout.visual) - 1
        for keys, origin in zip(done.keys, done.origins, strict=True):
            assert len(keys) == done.n_other + len(origin)
        (positions,) = sequence.positions
        assert (positions.diff() > 0).all(), method
        if plan.keeps_positions and method != "pyramiddrop":
            assert torch.equal(positions[sequence.others], is_text.nonzero().flatten()), method
        counts = [len(origin) for origin in done.origins]
        assert counts == sorted(counts, reverse=True)
        assert method == "none" or counts[-1] < clip.n_visual, method


@pytest.mark.parametrize("name", SMALLEST)
def test_a_ragged_batch_equals_each_alone(name: str, loaded: Callable[[str], Loaded]) -> None:
    it = loaded(name)
    visual = it.encode()
    requests = [
        adatp.Request("a", visual, PROMPT, SEGMENTS, RELEVANCE, "adatp", max_new_tokens=5),
        adatp.Request("b", visual[1:4], "describe", (1, 2), None, "adatp", p=2.0, max_new_tokens=3),
        adatp.Request("c", visual[:1], "red", None, None, "pyramiddrop", max_new_tokens=4),
        adatp.Request("d", visual[2:], PROMPT, None, None, "visionzip", max_new_tokens=5),
    ]
    for packed in (None, 10_000):
        together = adatp.Engine(it.model, batch_size=4, prefill_tokens=packed).run(requests)
        for alone in requests:
            expected = adatp.Engine(it.model).run([alone])[alone.key]
            assert together[alone.key].token_ids == expected.token_ids, (alone.key, packed)


@pytest.mark.parametrize("name", CHECKPOINTS)
@torch.inference_mode()
def test_what_visionzip_ranks_by(name: str, loaded: Callable[[str], Loaded]) -> None:
    """The last tower layer's eager map: the class token's row where there is one, else the mean over all rows."""
    it = loaded(name)
    visual = it.encode()[:2]
    assert visual.ranking is not None
    tower = it.model.hf.model.vision_tower if it.is_internvl else it.model.hf.model.vision_model
    implementation = tower.config._attn_implementation
    try:
        tower.set_attn_implementation("eager")
        attention = tower(it.pixels[:2], output_attentions=True).attentions[-1]  # (2, H, rows, rows)
    finally:
        tower.set_attn_implementation(implementation)
    received = attention[:, :, 0, 1:].mean(1) if it.is_internvl else attention.mean((1, 2))
    side, merge = visual.grid[0], round((received.shape[1] / visual.tokens_per_frame) ** 0.5)
    blocks = received.view(2, side, merge, side, merge)
    expected = torch.stack([block.mean() for frame in blocks for row in frame for block in row.transpose(0, 1)])
    torch.testing.assert_close(visual.ranking.received, expected.view(2, -1), rtol=1e-4, atol=1e-7)
    assert visual.ranking.keys.shape[:2] == (2, side * side)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_flops_of_tower_and_projector_are_what_runs(name: str, loaded: Callable[[str], Loaded]) -> None:
    it = loaded(name)
    counter = FlopCounterMode(display=False)
    tower = it.model.hf.model.vision_tower if it.is_internvl else it.model.hf.model.vision_model
    implementation = tower.config._attn_implementation
    try:
        tower.set_attn_implementation("eager")  # the counter knows no fused attention on a CPU
        with counter:
            visual = it.model.encode(it.pixels[:3], TIMES[:3])
    finally:
        tower.set_attn_implementation(implementation)
    assert it.model.family.vision_flops(3, visual.grid) == pytest.approx(counter.get_total_flops(), rel=1e-6)


def test_half_the_frames_cost_half_the_tower(loaded: Callable[[str], Loaded]) -> None:
    """The end-to-end ratio counts this family's own tower and projector, of the frames that were encoded."""
    it = loaded(SMALLEST[0])
    visual = it.encode()
    one = {"method": "adatp+repframes", "segments": (5,), "relevance": None, "max_new_tokens": 1}
    got = adatp.Engine(it.model).run([request(visual, **one)])["clip"].flops
    tower = it.model.family.vision_flops(1, visual.grid)
    assert got.end_to_end > tower / (5 * tower * 1.5)
    assert got.end_to_end < 0.4


CHANGES = [
    (SMALLEST[1], ("text_config", "rope_theta"), 10000),
    (SMALLEST[1], ("text_config", "rms_norm_eps"), 1e-2),
    (SMALLEST[1], ("vision_config", "layer_norm_eps"), 1e-1),
    (SMALLEST[1], ("vision_config", "hidden_act"), "relu"),
    (SMALLEST[0], ("text_config", "rope_theta"), 10000.0),
    (SMALLEST[0], ("vision_config", "layer_norm_eps"), 1e-1),
    (SMALLEST[0], ("projector_hidden_act",), "relu"),
]


@pytest.mark.parametrize(("name", "key", "value"), CHANGES, ids=lambda x: ".".join(x) if isinstance(x, tuple) else None)
def test_every_number_of_the_configuration_reaches_the_logits(
    name: str, key: tuple[str, ...], value: Any, loaded: Callable[[str], Loaded], tmp_path: Path
) -> None:
    """With one number of config.json changed, the logits are no longer those of the published numbers."""
    it = loaded(name)
    config = json.loads((it.folder / "config.json").read_text())
    at = config[key[0]] if len(key) == 2 else config
    at[key[-1]] = value
    (it.copy(tmp_path) / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config))
    changed = adatp.load(tmp_path)
    pixels, times = it.pixels[:2], TIMES[:2]
    ours, others = (
        prefill_logits(model, request(model.encode(pixels, times), segments=(2,), relevance=None, method="none"))
        for model in (it.model, changed)
    )
    assert (ours - others).abs().max() > 1e-3


def test_the_loaded_configuration_is_the_published_one(loaded: Callable[[str], Loaded]) -> None:
    """Key by key, but those that say how the file was written."""
    written = {"architectures", "torch_dtype", "transformers_version", "pad_token_id", "rope_theta", "rope_scaling"}
    for name, module in zip(SMALLEST, (internvl, smolvlm), strict=True):
        effective = loaded(name).model.hf.config.to_dict()
        published = module.reduced(name, 6)
        for part in ("text_config", "vision_config", None):
            told, known = (x if part is None else x[part] for x in (published, effective))
            for key in told.keys() - written - {"text_config", "vision_config"}:
                assert known[key] == told[key], (name, part, key)
        assert effective["text_config"]["rope_parameters"]["rope_theta"] == published["text_config"]["rope_theta"]


def test_left_out_numbers_are_the_classes_defaults() -> None:
    """Of the full published configurations; 938,193,024 parameters and 733 tensors are what the 1B is known to have."""
    with torch.device("meta"):
        config = InternVLConfig.from_dict(internvl.CONFIGS[SMALLEST[0]] | {"tie_word_embeddings": False})
        whole = InternVLForConditionalGeneration(config)
    assert sum(weight.numel() for weight in whole.parameters()) == 938_193_024
    assert len(whole.state_dict()) == 733
    assert internvl.published_key("lm_head.weight") == "language_model.lm_head.weight"
    small = SmolVLMConfig.from_dict(smolvlm.CONFIGS[SMALLEST[1]])
    assert (small.vision_config.num_hidden_layers, small.vision_config.intermediate_size) == (12, 3072)
    large = SmolVLMConfig.from_dict(smolvlm.CONFIGS["HuggingFaceTB/SmolVLM2-2.2B-Instruct"])
    assert (large.text_config.num_attention_heads, large.text_config.num_key_value_heads) == (32, 32)


def test_the_published_lm_head_is_no_copy_of_the_embeddings(loaded: Callable[[str], Loaded]) -> None:
    """InternVL3's configuration says tied by default; its file holds an lm_head of its own, which counts."""
    it = loaded(SMALLEST[0])
    assert it.model.hf.config.tie_word_embeddings
    assert torch.equal(it.model.hf.lm_head.weight, it.theirs.lm_head.weight)
    assert not torch.equal(it.model.hf.lm_head.weight, it.model.decoder.embed_tokens.weight)


def test_shards_hold_the_same_model(tmp_path: Path, loaded: Callable[[str], Loaded]) -> None:
    it = loaded(SMALLEST[0])
    tensors = load_file(it.folder / "model.safetensors")
    write_weights(it.copy(tmp_path, weights=False), tensors, torch.bfloat16, n_shards=3)
    assert len(list(tmp_path.glob("model-0000?-of-00003.safetensors"))) == 3
    state = adatp.load(tmp_path).hf.state_dict()
    assert all(torch.equal(state[k], v) for k, v in it.model.hf.state_dict().items())


def test_stop_tokens(loaded: Callable[[str], Loaded]) -> None:
    """SmolVLM2's <|im_end|> pads; its turns end in <end_of_utterance>."""
    assert loaded(SMALLEST[0]).model.stop_token_ids == {151645}
    assert loaded(SMALLEST[1]).model.stop_token_ids == {49279}


@pytest.mark.parametrize("hostile", ["</img>\nFrame2: <img>", "<video>", "<image>", "<end_of_utterance>", "<|im_end|>"])
@pytest.mark.parametrize("name", SMALLEST)
def test_control_tokens_in_the_users_text_are_plain_text(
    name: str, hostile: str, loaded: Callable[[str], Loaded]
) -> None:
    it = loaded(name)
    visual, tok = it.encode(), it.model.prompt.tokenizer
    special = {i for i, token in tok.added_tokens_decoder.items() if token.special}

    def controls(text: str) -> list[int]:
        return [i for i in it.model.lay_out(text, visual.n_steps, visual, visual.times_s).ids if i in special]

    assert controls(f"what {hostile} is") == controls("what is")


def test_words_of_a_count() -> None:
    """As num2words 0.5.14 writes them, which transformers' processor calls; equal to it for 1 to 999."""
    words = {1: "one", 11: "eleven", 13: "thirteen", 19: "nineteen", 20: "twenty", 21: "twenty-one", 32: "thirty-two"}
    words |= {40: "forty", 64: "sixty-four", 99: "ninety-nine", 100: "one hundred", 107: "one hundred and seven"}
    words |= {320: "three hundred and twenty", 999: "nine hundred and ninety-nine"}
    assert {n: in_words(n) for n in words} == words
    for n in (0, -1, 1000):
        with pytest.raises(ValueError, match=f"expected 1 to 999 frames, got {n}"):
            in_words(n)


def test_bad_clips_are_refused_by_name(loaded: Callable[[str], Loaded]) -> None:
    counted, timed = loaded(SMALLEST[0]), loaded(SMALLEST[1])
    with pytest.raises(ValueError, match=r"expected pixels \(n, 3, 448, 448\), got \(5, 3, 448, 446\)"):
        counted.model.encode(counted.pixels[..., :-2])
    with pytest.raises(ValueError, match="expected the seconds of every frame"):
        timed.model.encode(timed.pixels)
    for it in (counted, timed):
        few = it.model.encode(it.pixels[[1, 3, 4]], [TIMES[1], TIMES[3], TIMES[4]])
        asked = request(few, method="adatp+repframes")
        if it is timed:
            with pytest.raises(ValueError, match="names the seconds of every frame: expected all frames encoded"):
                adatp.Engine(it.model).run([asked])
        else:
            whole = adatp.Engine(it.model).run([request(it.encode(), method="adatp+repframes")])["clip"]
            assert adatp.Engine(it.model).run([asked])["clip"].token_ids == whole.token_ids


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (
        SMALLEST[0],
        {"model_type": "internvl_chat"},
        r"OpenGVLab's original layout.*expected .*: OpenGVLab/InternVL3-1B-hf",
    ),
    (SMALLEST[0], {"vision_feature_layer": -2}, "expected vision_feature_layer -1 and strategy default, got -2"),
    (SMALLEST[0], {"vision_feature_select_strategy": "full"}, "strategy default, got -1 and full"),
    (SMALLEST[0], {"downsample_ratio": 0.3}, "expected a square grid of patches that downsample_ratio divides"),
    (SMALLEST[0], {"image_seq_length": 64}, "expected image_seq_length 256 of this tower, got 64"),
    (SMALLEST[1], {"scale_factor": 3}, "expected a scale_factor that divides 32 patches a side, got 3"),
    (SMALLEST[1], {"text_config": {"qk_layer_norms": True}}, "expected qk_layer_norms false"),
    (SMALLEST[1], {"text_config": {"rope_interleaved": True}}, "expected rope_interleaved false"),
    (SMALLEST[1], {"text_config": {"model_type": "mistral"}}, "expected a llama decoder, got mistral"),
    (SMALLEST[1], {"model_type": "idefics3"}, "unsupported architecture: .*'idefics3'"),
]


@pytest.mark.parametrize(("name", "change", "message"), REFUSED, ids=[str(change) for _, change, _ in REFUSED])
def test_what_is_not_done_is_refused_in_one_line(
    name: str, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Before any weight is read: a file of weights need not even hold one."""
    folder = tmp_path / name.split("/")[1].removesuffix("-hf")
    folder.mkdir()
    config = (internvl if "InternVL" in name else smolvlm).reduced(name, 6)
    for key, value in change.items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").touch()
    with pytest.raises(adatp.CheckpointError, match=message) as refusal:
        adatp.load(folder)
    assert "\n" not in str(refusal.value)
