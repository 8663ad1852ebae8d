"""The engine against transformers itself and against slow references that mask instead of dropping."""

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import adatp
from adatp.engine import clip_of, layout_of
from adatp.methods import resolve
from adatp.prefill import embed, prefill
from tests.adatp.masking import masked_greedy, masked_logits

PROMPT = "What colour is the video ?"
SEGMENTS = (5, 3, 8)
RELEVANCE = (0.2, 0.01, 0.04)


def request(visual: adatp.Visual, **options: Any) -> adatp.Request:
    defaults = {"prompt": PROMPT, "segments": SEGMENTS, "relevance": RELEVANCE, "max_new_tokens": 32, "trace": True}
    return adatp.Request("clip", visual, **(defaults | options))


def run(model: adatp.VideoLLM, visual: adatp.Visual, **options: Any) -> adatp.Result:
    return adatp.Engine(model).run([request(visual, **options)])["clip"]


def prefill_logits(model: adatp.VideoLLM, asked: adatp.Request) -> Tensor:
    clip = clip_of(asked, model)
    plan = resolve(asked.method).plan(clip)
    return prefill(model, [embed(model, layout_of(asked, clip, model), clip, plan)])[0].logits


def test_none_gives_transformers_logits_and_greedy_tokens(onevision: adatp.VideoLLM, pixels: Tensor) -> None:
    visual = onevision.encode(pixels)
    ids = torch.tensor([onevision.prompt_ids(PROMPT, visual)])
    with torch.inference_mode():
        theirs = onevision.hf(input_ids=ids, pixel_values_videos=pixels[None]).logits[0, -1]
        tokens = onevision.hf.generate(
            input_ids=ids, pixel_values_videos=pixels[None], max_new_tokens=32, do_sample=False
        )[0, ids.shape[1] :].tolist()
    asked = request(visual, method="none")
    torch.testing.assert_close(prefill_logits(onevision, asked), theirs, rtol=1e-4, atol=1e-4)
    mine = adatp.Engine(onevision).run([asked])["clip"]
    assert list(mine.token_ids) == [t for t in tokens if t not in onevision.stop_token_ids]
    assert mine.finish_reason == ("stop" if tokens[-1] in onevision.stop_token_ids else "length")
    assert len(set(mine.token_ids)) > 3, "a model that repeats one token proves nothing"


def test_a_budget_of_everything_equals_none(onevision: adatp.VideoLLM, pixels: Tensor) -> None:
    visual = onevision.encode(pixels)
    all_of_it = run(onevision, visual, method=adatp.AdaTP(local_debias=False), p=100.0)
    none = run(onevision, visual, method="none")
    assert all_of_it.token_ids == none.token_ids
    assert all_of_it.visual_tokens_per_layer == (16 * 9,) * 8
    assert all_of_it.flops == none.flops == adatp.FlopsRatios(1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    "method",
    [
        adatp.AdaTP(),
        adatp.AdaTP(local_debias=False),
        adatp.AdaTP(rows="last", end=5),
        adatp.FastV(layer=3, keep=0.3),
        adatp.AdaTP(representative_frames=2),
        adatp.Onsets(refresh=3),
        adatp.EchoPrune(keep=0.4),
    ],
    ids=repr,
)
def test_dropping_equals_masking_the_same_tokens(onevision: adatp.VideoLLM, pixels: Tensor, method: Any) -> None:
    """The reference keeps every token in every layer and hides dropped ones behind a mask, recomputing everything."""
    visual = onevision.encode(pixels)
    dropped = run(onevision, visual, method=method)
    assert dropped.kept is not None
    assert len(dropped.kept[-1]) < 16 * 9
    masked = masked_greedy(onevision, visual, PROMPT, dropped.kept, n_tokens=32)
    assert len(masked) == 32
    expected = [t for t in masked if t not in onevision.stop_token_ids]
    assert list(dropped.token_ids) == expected[: len(dropped.token_ids)]
    assert len(dropped.token_ids) == 32 or masked[len(dropped.token_ids)] in onevision.stop_token_ids


def ragged(model: adatp.VideoLLM, pixels: Tensor) -> list[adatp.Request]:
    """Five clips of different length, prompt, method and limit."""
    visual = model.encode(pixels)
    return [
        adatp.Request("a", visual, PROMPT, SEGMENTS, RELEVANCE, "adatp", max_new_tokens=20),
        adatp.Request("b", visual[3:10], "Describe the video .", (2, 5), None, "adatp", p=2.0, max_new_tokens=9),
        adatp.Request("c", visual[:1], "red ?", (1,), None, "adatp", max_new_tokens=14),
        adatp.Request("d", visual[5:], PROMPT, None, None, "pyramiddrop", p=1.5, max_new_tokens=20),
        adatp.Request("e", visual[2:8], "is it blue ?", None, None, "none", max_new_tokens=17),
    ]


@pytest.mark.parametrize("prefill_tokens", [None, 10_000], ids=["prefilled alone", "prefilled packed"])
def test_a_ragged_batch_equals_each_alone(
    onevision: adatp.VideoLLM, pixels: Tensor, prefill_tokens: int | None
) -> None:
    requests = ragged(onevision, pixels)
    together = adatp.Engine(onevision, batch_size=5, prefill_tokens=prefill_tokens).run(requests)
    assert list(together) == list("abcde")
    for alone in requests:
        expected = adatp.Engine(onevision).run([alone])[alone.key]
        got = together[alone.key]
        assert got.token_ids == expected.token_ids, alone.key
        assert got.visual_tokens_per_layer == expected.visual_tokens_per_layer
        assert got.finish_reason == expected.finish_reason
    assert len({len(r.token_ids) for r in together.values()}) > 2


@pytest.mark.parametrize("seed", range(6))
def test_whatever_comes_when_each_result_is_that_of_each_alone(
    onevision: adatp.VideoLLM, pixels: Tensor, seed: int
) -> None:
    """Requests handed in one by one between steps, in any order, with fewer places than requests; some with choices."""
    rng = random.Random(seed)
    requests = ragged(onevision, pixels)
    more = [replace(r, key=f"{r.key}2", prompt="Which colour ?", max_new_tokens=3 + i) for i, r in enumerate(requests)]
    asked = [replace(r, key=f"{r.key}3", choices=("red", "very very green")) for r in requests[:2]]
    coming = [*requests, *more, *asked]
    alone = {r.key: adatp.Engine(onevision).run([r])[r.key] for r in coming}
    rng.shuffle(coming)
    engine = adatp.Engine(onevision, batch_size=rng.randint(1, 4), prefill_tokens=rng.choice([0, 300, 10_000]))
    left, found = list(coming), dict[str, adatp.Result]()
    while left or not engine.is_idle:
        for _ in range(rng.randint(0, 2)):
            if left:
                engine.submit([left.pop()])
        if not engine.is_idle:
            found |= engine.step()
    assert found.keys() == alone.keys()
    for key, result in found.items():
        assert (result.token_ids, result.text, result.finish_reason) == (
            alone[key].token_ids,
            alone[key].text,
            alone[key].finish_reason,
        )
        assert result.visual_tokens_per_layer == alone[key].visual_tokens_per_layer


@pytest.mark.parametrize("method", ["adatp", "none", "fastv", "pyramiddrop", "dycoke"])
def test_prompts_on_one_clip_share_layers_and_nothing_else(
    onevision: adatp.VideoLLM, pixels: Tensor, method: str
) -> None:
    """Three prompts on a clip, and one on another clip beside them, have the results of each alone; rows are saved."""
    visual, other = onevision.encode(pixels), onevision.encode(pixels[3:10])
    asked = [
        replace(request(visual, prompt=prompt, relevance=relevance, method=method, max_new_tokens=12), key=f"{i}")
        for i, (prompt, relevance) in enumerate(
            [("red ?", RELEVANCE), ("Describe the video .", None), ("is it very blue ?", RELEVANCE[::-1])]
        )
    ]
    asked.append(replace(request(other, segments=(2, 5), relevance=None, method=method, max_new_tokens=12), key="3"))
    alone = {r.key: adatp.Engine(onevision).run([r])[r.key] for r in asked}
    rows: list[int] = []
    first_mlp = onevision.decoder.layers[0].mlp.register_forward_pre_hook(lambda _, x: rows.append(len(x[0])))
    try:
        together = adatp.Engine(onevision).run(asked)
    finally:
        first_mlp.remove()
    for key, result in together.items():
        assert (result.token_ids, result.visual_tokens_per_layer) == (
            alone[key].token_ids,
            alone[key].visual_tokens_per_layer,
        ), key
    n_visual = alone["0"].visual_tokens_per_layer[0]
    assert max(rows) < 2 * n_visual, "the clip went through the first layer once"


def test_a_finished_clips_place_is_given_to_the_next(onevision: adatp.VideoLLM, pixels: Tensor) -> None:
    visual = onevision.encode(pixels[:2])
    limits = [2, 9, 2, 2, 2, 2]
    requests = [
        adatp.Request(str(i), visual, "red ?", None, None, "none", max_new_tokens=n) for i, n in enumerate(limits)
    ]
    lengths = {key: len(r.token_ids) for key, r in adatp.Engine(onevision).run(requests).items()}
    engine, steps = adatp.Engine(onevision, batch_size=2), 0
    engine.submit(requests)
    while not engine.is_idle:
        engine.step()
        steps += 1
    others = sum(n for key, n in lengths.items() if key != "1")
    assert steps <= max(lengths["1"], others) + len(requests), "short ones pass through the place beside the long one"


def test_two_clips_through_one_engine_leave_no_trace_of_the_first(onevision: adatp.VideoLLM, pixels: Tensor) -> None:
    engine = adatp.Engine(onevision)
    visual = onevision.encode(pixels, visionzip=True)
    before = {name: tensor.clone() for name, tensor in onevision.hf.state_dict().items()}
    for method in adatp.METHODS:
        second = request(visual[4:9], segments=(2, 3), relevance=None, method=method)
        fresh = adatp.Engine(onevision).run([second])["clip"]
        engine.run([request(visual, method=method)])
        again = engine.run([second])["clip"]
        assert (again.token_ids, again.kept) == (fresh.token_ids, fresh.kept), method
    assert all(torch.equal(before[name], tensor) for name, tensor in onevision.hf.state_dict().items())


@pytest.mark.parametrize("method", list(adatp.METHODS))
@pytest.mark.parametrize("layout", ["onevision", "llava_video"])
def test_every_method_runs_and_never_grows(
    request: pytest.FixtureRequest, layout: str, method: str, pixels: Tensor
) -> None:
    model: adatp.VideoLLM = request.getfixturevalue(layout)
    for p in (0.5, 1.0, 2.0):
        result = run(model, model.encode(pixels, visionzip=True), method=method, p=p, max_new_tokens=3)
        counts = result.visual_tokens_per_layer
        assert len(counts) == model.n_layers
        assert list(counts) == sorted(counts, reverse=True)
        assert counts[0] <= result.n_visual_tokens == 16 * model.tokens_per_frame
        assert (max(counts) < result.n_visual_tokens or counts[-1] < counts[0]) == (method != "none")


@pytest.mark.parametrize("method", ["adatp", "fastv", "pyramiddrop"])
def test_text_and_newline_are_never_dropped_and_positions_rise(
    onevision: adatp.VideoLLM, pixels: Tensor, method: str
) -> None:
    asked = request(onevision.encode(pixels), method=method)
    clip = clip_of(asked, onevision)
    ids = onevision.prompt.ids(PROMPT)
    sequence = embed(onevision, layout_of(asked, clip, onevision), clip, resolve(method).plan(clip))
    done = prefill(onevision, [sequence])[0]
    n_other = len(ids)  # placeholder out, newline vector in
    for layer in range(onevision.n_layers):
        assert len(done.keys[layer]) == n_other + len(done.origins[layer])
        assert (done.origins[layer].diff() > 0).all()
    (positions,) = sequence.positions
    assert (positions.diff() > 0).all()
    assert done.next_positions[-1] == positions[-1] + 1
    if method == "pyramiddrop":
        assert positions.tolist() == list(range(len(sequence)))
    else:
        header = ids.index(onevision.prompt.video_token_id)
        tail = len(ids) - header  # the newline vector stands for the placeholder
        assert positions[:header].tolist() == list(range(header))
        assert positions[-tail:].tolist() == list(range(header + 144, header + 144 + tail))
        assert done.next_positions == [header + 144 + tail] * onevision.n_layers


def test_kept_tokens_never_exceed_segments_times_c_after_dedup(onevision: adatp.VideoLLM, pixels: Tensor) -> None:
    visual = onevision.encode(pixels)
    for segments in ((16,), (5, 3, 8), (1,) * 16):
        result = run(onevision, visual, segments=segments, relevance=None, method="adatp", p=2.0)
        assert max(result.visual_tokens_per_layer[2:]) <= len(segments) * 9
        assert result.kept is not None
        for layer in result.kept[2:]:
            segment_of = [g for g, length in enumerate(segments) for _ in range(length)]
            places = [(segment_of[origin // 9], origin % 9) for origin in layer]
            assert len(set(places)) == len(places)


def test_choices_have_the_likelihood_transformers_gives_them(onevision: adatp.VideoLLM, pixels: Tensor) -> None:
    choices = ("red", "very blue", "very very green")
    result = run(onevision, onevision.encode(pixels), method="none", choices=choices)
    assert result.choice_logprobs is not None
    ids = onevision.prompt_ids(PROMPT, onevision.encode(pixels))
    for text, mine in zip(choices, result.choice_logprobs, strict=True):
        answer = onevision.prompt.answer_ids(text)
        with torch.inference_mode():
            logits = onevision.hf(input_ids=torch.tensor([ids + answer]), pixel_values_videos=pixels[None]).logits[0]
        logprobs = logits.log_softmax(-1)[len(ids) - 1 : -1]
        expected = float(logprobs[torch.arange(len(answer)), torch.tensor(answer)].sum())
        assert mine.n_tokens == len(answer)
        assert mine.sum == pytest.approx(expected, abs=2e-4)
        assert mine.mean == pytest.approx(expected / len(answer), abs=2e-4)
    assert result.text == max(zip(choices, result.choice_logprobs, strict=True), key=lambda x: x[1].mean)[0]


def test_choices_under_pruning_have_the_likelihood_of_masking(onevision: adatp.VideoLLM, pixels: Tensor) -> None:
    visual = onevision.encode(pixels)
    result = run(onevision, visual, choices=("very very green", "red"))
    assert result.kept is not None
    assert result.choice_logprobs is not None
    answer = onevision.prompt.answer_ids("very very green")
    logprobs = masked_logits(onevision, visual, PROMPT, result.kept, answer).log_softmax(-1)
    expected = float(logprobs[torch.arange(3), torch.tensor(answer)].sum())
    assert result.choice_logprobs[0].sum == pytest.approx(expected, abs=2e-4)


def test_representative_frames_may_come_encoded_alone(onevision: adatp.VideoLLM, pixels: Tensor) -> None:
    frames = adatp.representative_frames(SEGMENTS)
    assert frames == (2, 6, 12)
    whole = run(onevision, onevision.encode(pixels), method="adatp+repframes")
    alone = run(onevision, onevision.encode(pixels[list(frames)]), method="adatp+repframes")
    assert whole.token_ids == alone.token_ids
    assert whole.kept == alone.kept
    assert whole.flops == alone.flops
    assert alone.n_visual_tokens == 16 * 9
    assert alone.visual_tokens_per_layer[0] == 3 * 9


def test_out_of_memory_splits_the_batch(onevision: adatp.VideoLLM, pixels: Tensor) -> None:
    """A head that runs out of memory above two clips stands in for a full GPU."""
    seen: list[int] = []

    def full(_module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(len(inputs[0]))
        if len(inputs[0]) > 2:
            raise torch.OutOfMemoryError(f"{len(inputs[0])} clips")

    requests = ragged(onevision, pixels)
    expected = adatp.Engine(onevision).run(requests)
    hook = onevision.hf.lm_head.register_forward_pre_hook(full)
    try:
        got = adatp.Engine(onevision, batch_size=5).run(requests)
    finally:
        hook.remove()
    assert max(seen) > 2
    assert {k: r.token_ids for k, r in got.items()} == {k: r.token_ids for k, r in expected.items()}


def test_a_clip_that_never_fits_raises(onevision: adatp.VideoLLM, pixels: Tensor) -> None:
    def full(_module: torch.nn.Module, _inputs: tuple[Tensor, ...]) -> None:
        raise torch.OutOfMemoryError("nothing fits")

    hook = onevision.hf.lm_head.register_forward_pre_hook(full)
    try:
        with pytest.raises(torch.OutOfMemoryError, match="nothing fits"):
            adatp.Engine(onevision).run(ragged(onevision, pixels))
    finally:
        hook.remove()


def test_bad_requests_are_refused_by_name(onevision: adatp.VideoLLM, pixels: Tensor) -> None:
    visual = onevision.encode(pixels)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"segments": (5, 3)}, r"sum to the clip's 16 frames, got \(5, 3\) = 8"),
        ({"segments": (16, 0)}, "at least 1 frame"),
        ({"relevance": (0.1,)}, "one relevance for each of 3 segments, got 1"),
        ({"method": "adapt"}, "unknown method 'adapt', expected one of none, adatp"),
        ({"method": 3}, "expected a method's name"),
        ({"p": 0.0}, "p above 0, got 0"),
        ({"p": float("nan")}, "p above 0, got nan"),
        ({"share": 0.0}, r"share in \(0, 1\], got 0"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"choices": ()}, "at least one choice"),
        ({"segments": None, "relevance": None}, "needs segments"),
    ]
    for options, message in refused:
        with pytest.raises(ValueError, match=message):
            request(visual, **options)
    for options, message in [
        ({"method": adatp.AdaTP(start=4, end=3)}, "expected 2 <= start < end <= 7"),
        ({"method": adatp.FastV(layer=8)}, "below the decoder's 8"),
        ({"method": adatp.VisionZip(tokens_per_frame=10)}, r"1\.\.9, got 10"),
    ]:
        with pytest.raises(ValueError, match=message):
            run(onevision, onevision.encode(pixels, visionzip=True), **options)
    with pytest.raises(TypeError, match="tau"):
        adatp.AdaTP(tau=0.1)  # type: ignore[call-arg]  # the typo is the point
    with pytest.raises(ValueError, match="act inside segments"):
        adatp.AdaTP(segments=False)
    with pytest.raises(ValueError, match=r"distinct keys, got \['clip'\] repeated"):
        adatp.Engine(onevision).run([request(visual), request(visual)])
    small = request(adatp.Visual(visual.tokens[:, :4], (2, 2)))
    with pytest.raises(ValueError, match=r"visual tokens \(n, 9, 48\) of this model, got \(16, 4, 48\)"):
        adatp.Engine(onevision).run([small])
    with pytest.raises(ValueError, match=r"expected tokens \(n, 12, d\).*3 rows of 4 patches, got \(16, 9, 48\)"):
        adatp.Visual(visual.tokens, (3, 4))
    ranking = adatp.Ranking(torch.zeros(16, 5), torch.zeros(16, 9, 2))
    with pytest.raises(ValueError, match=r"expected received \(16, 9\)"):
        adatp.Visual(visual.tokens, (3, 3), ranking=ranking)
    with pytest.raises(ValueError, match="needs clips encoded with visionzip=True"):
        run(onevision, visual, method="visionzip")
    with pytest.raises(ValueError, match=r"expected pixels \(n, 3, 40, 40\)"):
        onevision.encode(pixels[..., :32])
