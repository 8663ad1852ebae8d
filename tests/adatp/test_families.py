"""Qwen2.5-VL and Qwen3-VL on their published configurations: transformers itself, and references that mask."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import adatp
from adatp.engine import clip_of, layout_of
from adatp.families import family_of
from adatp.flops import llm_prefill_flops
from adatp.methods import resolve
from adatp.prefill import embed, prefill
from adatp.segments import segments_of_steps
from adatp.weights import Checkpoint
from tests.adatp.masking import masked_greedy, masked_logits
from tests.published.qwen_vl import write_qwen_vl

QWEN25, QWEN3 = "Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen3-VL-4B-Instruct"
PROMPT = "what colour is the dog"
SEGMENTS, RELEVANCE = (3, 1, 5), (0.2, 0.01, 0.04)
N_FRAMES, ROWS, COLUMNS = 9, 3, 7  # an odd frame at the end; windows of 4 x 4 tokens cut both sides unevenly


@dataclass(frozen=True)
class Loaded:
    folder: Path
    model: adatp.VideoLLM
    theirs: Any
    """transformers' own class, loaded by transformers itself."""

    @property
    def side(self) -> int:
        """Pixels along a token."""
        vision = self.theirs.config.vision_config
        return int(vision.patch_size * vision.spatial_merge_size)

    def pixels(self, n: int = N_FRAMES, rows: int = ROWS, columns: int = COLUMNS, seed: int = 5) -> Tensor:
        return torch.randn(n, 3, rows * self.side, columns * self.side, generator=torch.Generator().manual_seed(seed))

    def encode(self, n: int = N_FRAMES, rows: int = ROWS, columns: int = COLUMNS, seed: int = 5) -> adatp.Visual:
        return self.model.encode(self.pixels(n, rows, columns, seed), times(n))


def times(n: int) -> list[float]:
    """1.5 frames a second from 10 s on."""
    return [10 + i / 1.5 for i in range(n)]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Loaded]:
    """Both checkpoints, written and loaded once."""
    made = {}
    for name in (QWEN25, QWEN3):
        folder = write_qwen_vl(tmp_path_factory.mktemp("qwen"), name)
        model = adatp.load(folder)
        made[name] = Loaded(folder, model, type(model.hf).from_pretrained(folder, dtype=torch.float32).eval())
    return made


@pytest.fixture(params=[QWEN25, QWEN3], ids=["qwen2.5", "qwen3"])
def loaded(request: pytest.FixtureRequest, once: dict[str, Loaded]) -> Loaded:
    return once[request.param]


def slow_patches(pixels: Tensor, patch: int, merge: int) -> Tensor:
    """What transformers' video processors make of frames: one patch after the other, (t * P, 3 * 2 * patch * patch)."""
    frames = list(pixels) + ([pixels[-1]] if len(pixels) % 2 else [])
    _, height, width = frames[0].shape
    patches = []
    for first, second in zip(frames[::2], frames[1::2], strict=True):
        for top in range(0, height, patch * merge):
            for left in range(0, width, patch * merge):
                for y in range(top, top + patch * merge, patch):
                    for x in range(left, left + patch * merge, patch):
                        two = torch.stack(
                            [first[:, y : y + patch, x : x + patch], second[:, y : y + patch, x : x + patch]]
                        )
                        patches.append(two.transpose(0, 1).flatten())
    return torch.stack(patches)


def slow_prompt(loaded: Loaded, n: int, c: int, text: str) -> list[int]:
    """The processor's prompt: its template, its replacement of the video, one tokenisation of the whole string."""
    tokenizer = loaded.model.prompt.tokenizer
    template = tokenizer.chat_template
    if (file := loaded.folder / "chat_template.json").exists():
        template = json.loads(file.read_text())["chat_template"]
    turns = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": text}]}]
    rendered = tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False, add_generation_prompt=True)
    pads = "<|video_pad|>" * c
    if loaded.theirs.config.model_type == "qwen2_5_vl":
        rendered = rendered.replace("<|video_pad|>", pads * -(-n // 2))
    else:
        at = times(n) + times(n)[-1:] * (n % 2)
        steps = [f"<{(a + b) / 2:.1f} seconds>" for a, b in zip(at[::2], at[1::2], strict=True)]
        spelled = "".join(f"{step}<|vision_start|>{pads}<|vision_end|>" for step in steps)
        rendered = rendered.replace("<|vision_start|><|video_pad|><|vision_end|>", spelled)
    ids: list[int] = tokenizer(rendered, add_special_tokens=False).input_ids
    return ids


def their_inputs(loaded: Loaded, n: int = N_FRAMES, text: str = PROMPT) -> dict[str, Any]:
    """Everything transformers' own processor would hand its model."""
    vision = loaded.theirs.config.vision_config
    merge = vision.spatial_merge_size
    ids = torch.tensor([slow_prompt(loaded, n, ROWS * COLUMNS, text)])
    inputs: dict[str, Any] = {
        "input_ids": ids,
        "mm_token_type_ids": 2 * (ids == loaded.theirs.config.video_token_id).int(),
        "pixel_values_videos": slow_patches(loaded.pixels(n), vision.patch_size, merge),
        "video_grid_thw": torch.tensor([[-(-n // 2), ROWS * merge, COLUMNS * merge]]),
    }
    if loaded.theirs.config.model_type == "qwen2_5_vl":
        inputs["second_per_grid_ts"] = [2 / 1.5]
    return inputs


def asked(visual: adatp.Visual, **options: Any) -> adatp.Request:
    defaults = {"prompt": PROMPT, "segments": SEGMENTS, "relevance": RELEVANCE, "max_new_tokens": 12, "trace": True}
    return adatp.Request("clip", visual, **(defaults | options))


def first_logits(model: adatp.VideoLLM, request: adatp.Request) -> Tensor:
    clip = clip_of(request, model)
    sequence = embed(model, layout_of(request, clip, model), clip, resolve(request.method).plan(clip))
    return prefill(model, [sequence])[0].logits


@torch.inference_mode()
@pytest.mark.parametrize("n", [N_FRAMES, 2])
def test_none_gives_transformers_prompt_logits_and_greedy_tokens(loaded: Loaded, n: int) -> None:
    visual, inputs = loaded.encode(n), their_inputs(loaded, n)
    request = asked(visual, method="none", segments=None, relevance=None)
    assert loaded.model.prompt_ids(PROMPT, visual) == inputs["input_ids"][0].tolist()
    theirs = loaded.theirs(**inputs).logits[0, -1]
    torch.testing.assert_close(first_logits(loaded.model, request), theirs, rtol=0, atol=1e-4)
    out = loaded.theirs.generate(**inputs, max_new_tokens=12, do_sample=False)[
        0, inputs["input_ids"].shape[1] :
    ].tolist()
    mine = adatp.Engine(loaded.model).run([request])["clip"]
    assert list(mine.token_ids) == [t for t in out if t not in loaded.model.stop_token_ids]
    assert len(set(mine.token_ids)) > 3, "a model that repeats one token proves nothing"


@torch.inference_mode()
def test_positions_are_transformers_own(loaded: Loaded) -> None:
    """Also where the video lasts so long that its times pass the text behind it: decoding then goes on after them."""
    inputs = their_inputs(loaded)
    for spacing in (1 / 1.5, 9.0):
        visual = loaded.model.encode(loaded.pixels(), [spacing * i for i in range(N_FRAMES)])
        if "second_per_grid_ts" in inputs:
            inputs["second_per_grid_ts"] = [2 * spacing]
        layout = loaded.model.lay_out(PROMPT, visual.n_steps, visual, visual.times_s)
        kept = {k: v for k, v in inputs.items() if k != "pixel_values_videos"}
        theirs, delta = loaded.theirs.model.get_rope_index(**kept)
        if loaded.theirs.config.model_type == "qwen2_5_vl":
            assert torch.equal(layout.positions, theirs[:, 0])
        assert layout.next_position == len(layout.ids) + int(delta) or loaded.theirs.config.model_type == "qwen3_vl"
        assert layout.next_position == int(layout.positions.max()) + 1


DROPPING = [
    *["adatp", "fastv", "pyramiddrop", "onsets", "evs", "echoprune", "vcast", "vidcom2"],
    *["random", "uniform", "framedrop", "adatp+repframes"],
]


@pytest.mark.parametrize("method", DROPPING)
def test_dropping_equals_masking_the_same_tokens(loaded: Loaded, method: str) -> None:
    """Every survivor keeps its coordinates, whatever the method would renumber elsewhere; so masking is the truth.

    The reference adds the tower's deepstack features at every visual token and hides dropped ones behind a mask.
    """
    visual = loaded.encode()
    dropped = adatp.Engine(loaded.model).run([asked(visual, method=method, max_new_tokens=3)])["clip"]
    assert dropped.kept is not None
    assert len(dropped.kept[-1]) < 5 * ROWS * COLUMNS
    masked = masked_greedy(loaded.model, visual, PROMPT, dropped.kept, n_tokens=3)
    assert list(dropped.token_ids) == masked[: len(dropped.token_ids)]
    logits = masked_logits(loaded.model, visual, PROMPT, dropped.kept, [])[-1]
    request = asked(visual, method=method)
    torch.testing.assert_close(first_logits(loaded.model, request), logits, rtol=0, atol=1e-4)


def test_a_ragged_batch_of_other_shapes_equals_each_alone(loaded: Loaded) -> None:
    """Clips of other lengths, picture shapes, prompts and methods, prefilled in one pack."""
    requests = [
        adatp.Request("a", loaded.encode(), PROMPT, SEGMENTS, RELEVANCE, "adatp", max_new_tokens=7),
        adatp.Request("b", loaded.encode(4, 5, 2, seed=8), "describe this", (1, 3), None, "adatp", max_new_tokens=4),
        adatp.Request("c", loaded.encode(1, 2, 2, seed=9), "red", None, None, "none", max_new_tokens=6),
        adatp.Request("d", loaded.encode(7, seed=3), PROMPT, None, None, "pyramiddrop", p=1.5, max_new_tokens=7),
    ]
    together = adatp.Engine(loaded.model, batch_size=4, prefill_tokens=10_000).run(requests)
    for alone in requests:
        expected = adatp.Engine(loaded.model).run([alone])[alone.key]
        assert together[alone.key].token_ids == expected.token_ids, alone.key
        assert together[alone.key].visual_tokens_per_layer == expected.visual_tokens_per_layer


@pytest.mark.parametrize("method", [name for name in adatp.METHODS if name != "visionzip"])
def test_every_other_method_runs_and_never_grows(loaded: Loaded, method: str) -> None:
    result = adatp.Engine(loaded.model).run([asked(loaded.encode(), method=method, max_new_tokens=2)])["clip"]
    counts = result.visual_tokens_per_layer
    assert result.n_visual_tokens == 5 * ROWS * COLUMNS
    assert list(counts) == sorted(counts, reverse=True)
    assert (counts[-1] < result.n_visual_tokens) == (method != "none")


def test_representative_steps_are_chosen_after_all_were_encoded(loaded: Loaded) -> None:
    """The prompt tells the time of every step; so the tower sees them all, and the FLOPs say so."""
    visual = loaded.encode()
    result = adatp.Engine(loaded.model).run([asked(visual, method="adatp+repframes", max_new_tokens=1)])["clip"]
    assert result.visual_tokens_per_layer[0] == 2 * ROWS * COLUMNS  # the segment of one frame lost its step
    few = asked(visual, segments=(9,), relevance=None, method="adatp+repframes", max_new_tokens=1)
    fewer = adatp.Engine(loaded.model).run([few])["clip"]
    assert fewer.visual_tokens_per_layer[0] == ROWS * COLUMNS
    tower, shape = loaded.model.family.vision_flops(5, visual.grid), loaded.model.llm_shape
    full = llm_prefill_flops(shape, [result.n_visual_tokens + result.n_text_tokens] * shape.n_layers, "full")
    assert fewer.flops.end_to_end > tower / (tower + full)
    with pytest.raises(ValueError, match="segments that sum to the clip's 4 frames"):
        asked(visual[[0, 1, 4, 5]], method="adatp+repframes")


def test_visionzip_is_refused_by_name(loaded: Loaded) -> None:
    with pytest.raises(ValueError, match=r"visionzip ranks by a SigLIP tower's attention, which Qwen.* does not have"):
        adatp.Engine(loaded.model).run([asked(loaded.encode(), method="visionzip")])
    with pytest.raises(ValueError, match="visionzip ranks by"):
        loaded.model.encode(loaded.pixels(), times(N_FRAMES), visionzip=True)


def test_some_frames_of_an_encoded_clip_keep_their_times(loaded: Loaded) -> None:
    """A question is shown frames 0, 3, 4, 5 and 8: steps 0, 1, 2 and 4, of which some show one frame alone."""
    visual = loaded.encode()
    assert (visual.n_frames, visual.n_steps, visual.members) == (9, 5, (2, 2, 2, 2, 1))
    shown = visual[[0, 3, 4, 5, 8]]
    assert (shown.n_frames, shown.members) == (5, (1, 1, 2, 1))
    assert torch.equal(shown.tokens, visual.tokens[[0, 1, 2, 4]])
    assert shown.times_s == tuple((visual.times_s or ())[i] for i in (0, 1, 2, 4))
    both = adatp.Visual.cat([shown, visual])
    assert both.n_frames == 14
    result = adatp.Engine(loaded.model).run([asked(shown, segments=(1, 3, 1))])["clip"]
    assert result.n_visual_tokens == 4 * ROWS * COLUMNS


def test_sizes_and_times_it_cannot_take_are_refused(loaded: Loaded) -> None:
    pixels = loaded.pixels()
    with pytest.raises(ValueError, match="expected times_s of 9 frames that do not fall, got None"):
        loaded.model.encode(pixels)
    with pytest.raises(ValueError, match="that do not fall"):
        loaded.model.encode(pixels, times(N_FRAMES)[::-1])
    with pytest.raises(ValueError, match=f"divisible by {loaded.side}"):
        loaded.model.encode(pixels[..., :-1], times(N_FRAMES))
    with pytest.raises(ValueError, match="has no fixed frame size"):
        _ = loaded.model.frame_size
    for name, broken in (("deepstack", {"deepstack": torch.zeros(5, 21, 1, 7)}), ("times", {"times_s": None})):
        visual = loaded.encode()
        fields = {key: getattr(visual, key) for key in ("grid", "deepstack", "members", "times_s")}
        wrong = adatp.Visual(visual.tokens, **(fields | broken))
        with pytest.raises(ValueError, match=f"expected .*{name}|expected a clip with all its frames"):
            adatp.Engine(loaded.model).run([asked(wrong)])


def test_choices_have_the_likelihood_transformers_gives_them(loaded: Loaded) -> None:
    choices = ("red", "blue circle")
    request = asked(loaded.encode(), method="none", choices=choices)
    result = adatp.Engine(loaded.model).run([request])["clip"]
    inputs = their_inputs(loaded)
    for text, mine in zip(choices, result.choice_logprobs or (), strict=True):
        answer = loaded.model.prompt.answer_ids(text)
        ids = torch.cat([inputs["input_ids"], torch.tensor([answer])], 1)
        kinds = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, len(answer)))
        with torch.inference_mode():
            logits = loaded.theirs(**(inputs | {"input_ids": ids, "mm_token_type_ids": kinds})).logits[0]
        logprobs = logits[-len(answer) - 1 : -1].log_softmax(-1)
        expected = float(logprobs[torch.arange(len(answer)), torch.tensor(answer)].sum())
        assert mine.sum == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("grid", [(ROWS, COLUMNS), (5, 8)])
def test_vision_flops_equal_torchs_counter(loaded: Loaded, grid: tuple[int, int]) -> None:
    """On an eager tower, where every product is visible."""
    tower = loaded.theirs.model.visual
    implementation = tower.config._attn_implementation
    patches = slow_patches(loaded.pixels(4, *grid), tower.config.patch_size, 2)
    try:
        tower.set_attn_implementation("eager")
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            tower(patches, torch.tensor([[2, 2 * grid[0], 2 * grid[1]]]))
    finally:
        tower.set_attn_implementation(implementation)
    assert loaded.model.family.vision_flops(2, grid) == pytest.approx(counter.get_total_flops(), rel=1e-6)


# Keys of the published files that no arithmetic reads: of the file itself, of training, of text alone, or unknown to
# transformers' own classes.
NO_ARITHMETIC = {
    *["architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "use_cache", "initializer_range"],
    *["attention_dropout", "sliding_window", "max_window_layers", "in_chans", "spatial_patch_size", "vision_token_id"],
}


def differences(published: dict[str, Any], config: Any, path: str = "") -> set[str]:
    """Keys of a published config.json whose value a loaded model's configuration does not have."""
    found = set()
    for key, value in published.items():
        if key in NO_ARITHMETIC:
            continue
        if key.endswith("_config"):
            found |= differences(value, getattr(config, key), f"{key}.")
            continue
        owner = config.text_config if not path and not hasattr(config, key) else config  # Qwen2.5's file is flat
        if key == "rope_scaling":
            found |= {k for k, v in value.items() if k != "type" and owner.rope_parameters.get(k) != v}
        elif (owner.rope_parameters[key] if key == "rope_theta" else getattr(owner, key)) != value:
            found.add(path + key)
    return found


def of_four_frames(loaded: Loaded, model: adatp.VideoLLM) -> adatp.Request:
    visual = model.encode(loaded.pixels(4), times(4))
    return asked(visual, method="none", segments=None, relevance=None)


def outputs(folder: Path, loaded: Loaded) -> Tensor:
    """Last logits of what another configuration makes of the same weights."""
    checkpoint = Checkpoint.of(folder, torch.float32, None)
    family = family_of(checkpoint.config).load(checkpoint)
    family.hf.eval()
    model = adatp.VideoLLM(family, loaded.model.prompt, frozenset())
    return first_logits(model, of_four_frames(loaded, model))


def test_every_number_of_the_published_configuration_is_carried(loaded: Loaded) -> None:
    published = json.loads((loaded.folder / "config.json").read_text())
    assert differences(published, loaded.model.hf.config) == set()


CHANGES: list[tuple[str, Sequence[str], Any]] = [
    (QWEN25, ("rope_theta",), 10_000.0),
    (QWEN25, ("rope_scaling", "mrope_section"), [24, 24, 16]),
    (QWEN25, ("rms_norm_eps",), 1e-2),
    (QWEN25, ("vision_config", "window_size"), 56),
    (QWEN25, ("vision_config", "fullatt_block_indexes"), [7, 15, 23]),
    (QWEN25, ("vision_config", "tokens_per_second"), 25),
    (QWEN3, ("text_config", "rope_theta"), 10_000.0),
    (QWEN3, ("text_config", "rope_scaling", "mrope_section"), [48, 8, 8]),
    (QWEN3, ("text_config", "rms_norm_eps"), 1e-2),
    (QWEN3, ("vision_config", "deepstack_visual_indexes"), [5, 11, 18]),
    (QWEN3, ("vision_config", "hidden_act"), "relu"),
]


@pytest.mark.parametrize(
    ("loaded", "path", "value"), CHANGES, ids=[f"{c[0][5:12]}-{c[1][-1]}" for c in CHANGES], indirect=["loaded"]
)
def test_a_changed_number_is_seen_by_the_guard_and_in_the_logits(
    loaded: Loaded, tmp_path: Path, path: Sequence[str], value: Any
) -> None:
    published = json.loads((loaded.folder / "config.json").read_text())
    changed = json.loads(json.dumps(published))
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    for file in loaded.folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(changed))
    raw = Checkpoint.of(tmp_path, torch.float32, None)
    found = differences(published, family_of(raw.config).load(raw).hf.config)
    assert {key.split(".")[-1] for key in found} == {path[-1]}
    before = first_logits(loaded.model, of_four_frames(loaded, loaded.model))
    assert (outputs(tmp_path, loaded) - before).abs().max() > 1e-3


def test_an_unknown_architecture_is_refused_in_one_line(loaded: Loaded, tmp_path: Path) -> None:
    config = json.loads((loaded.folder / "config.json").read_text())
    config |= {"model_type": "qwen3_5", "architectures": ["Qwen3_5ForConditionalGeneration"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(adatp.CheckpointError) as refused:
        adatp.load(tmp_path)
    message = str(refused.value)
    assert "\n" not in message
    assert "'qwen3_5' (Qwen3_5ForConditionalGeneration); supported: " in message
    assert "Qwen3-VL (qwen3_vl)" in message


@pytest.mark.parametrize(
    ("members", "lengths", "relevance", "expected"),
    [
        ((2, 2, 2), (2, 4), None, ((1, 2), None)),
        ((2, 2, 2), (1, 5), None, ((1, 2), None)),  # one frame each: the earlier
        ((2, 2, 2), (1, 5), (0.1, 0.3), ((3,), (0.3,))),  # the more relevant
        ((2, 2, 1), (1, 1, 1, 1, 1), (0.5, 0.1, 0.2, 0.3, 0.4), ((1, 1, 1), (0.5, 0.3, 0.4))),
        ((1, 1, 2), (1, 1, 2), (0.1, 0.2, 0.3), ((1, 1, 1), (0.1, 0.2, 0.3))),
    ],
)
def test_segments_are_counted_in_steps(
    members: tuple[int, ...], lengths: tuple[int, ...], relevance: tuple[float, ...] | None, expected: Any
) -> None:
    assert segments_of_steps(members, lengths, relevance) == expected
