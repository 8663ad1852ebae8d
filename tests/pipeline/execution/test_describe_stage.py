"""Describing one item without Ray: rows from the builtin models, and what a killing clip costs."""

import contextlib
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

import adatp
from pipeline.config import CLIPS_PER_ITEM, DescribeSetup, IndexConfig, Recipe
from pipeline.describing.item_describer import ItemDescriber, embed_questions
from pipeline.execution.attempts import Attempts
from pipeline.execution.stages import DescribeStage
from pipeline.index.staging import Rows, decode_item
from pipeline.items.item import Item, Receipt, Source, decoded_to_row, item_to_row, receipt_from_record
from pipeline.items.stored_clips import again_items, answer_items
from pipeline.models.checkpoints import resolve_model, resolve_thresholds
from pipeline.types import ClipFrames, ClipPlan, Decoded, Target

QUESTION = "Which shape appears?"


def setup(**changes: object) -> DescribeSetup:
    config = IndexConfig(("x",), "y", "builtin", questions=(QUESTION,), max_new_tokens=3, **changes)  # type: ignore[arg-type]  # options as a dict
    model, encoder = resolve_model("builtin", "model"), resolve_model("builtin", "encoder")
    thresholds = resolve_thresholds(encoder)
    return DescribeSetup(
        model=model.identity,
        encoder=encoder.identity,
        thresholds=thresholds,
        recipe=Recipe.of(config, model.identity, encoder.identity, thresholds, {}),
        prune=config.prune,
        p=config.p,
        max_new_tokens=config.max_new_tokens,
        keep_frames=config.keep_frames,
        device="cpu",
        run_id="run",
    )


def an_item(recipe: Recipe, n_clips: int, n_items: int = 1) -> Item:
    clips = tuple(ClipPlan(k, 4.0 * k, 4.0 * k + 4, tuple(4.0 * k + i for i in range(4))) for k in range(n_clips))
    source = Source("v" * 32, "file:///v.mp4", b"/v.mp4", "1-1")
    return Item(source, "index", 0, n_items, clips, recipe.wanted, recipe.fingerprints)


def decoded(item: Item) -> Decoded:
    rng = np.random.default_rng(0)
    clips = []
    for plan in item.clips:
        colour = rng.integers(0, 256, (2, 1, 1, 1, 3))
        frames = np.broadcast_to(colour, (2, 2, 64, 64, 3)).reshape(4, 64, 64, 3).astype(np.uint8)  # two segments
        clips.append(ClipFrames(plan.clip_index, plan.start_s, plan.end_s, plan.targets_s, frames, None, (b"jpg",) * 4))
    return Decoded(tuple(clips), "pyav", 1.0, 0)


def test_an_item_becomes_rows_of_every_table() -> None:
    made = setup()
    stage, item = DescribeStage(made, lambda name: 1), an_item(made.recipe, 3)
    row = stage(decoded_to_row(item_to_row(item), decoded(item), 0.5)).to_pylist()[0]
    receipt = receipt_from_record(row)
    assert (receipt.failure, receipt.n_clips, receipt.coverage) == (None, 3, 1.0)
    tables = decode_item(row["staged"])
    assert {name: t.num_rows for name, t in tables.items()} == {
        "clips": 3,
        "segments": 6,
        "frames": 12,
        "captions": 3,
        "answers": 1,
    }
    segments = tables["segments"].to_pylist()
    assert [s["boundary_score"] is None for s in segments] == [True] + [False] * 5
    assert [(s["start_s"], s["end_s"]) for s in segments[:3]] == [(0.0, 2.0), (2.0, 4.0), (4.0, 6.0)]
    frames = np.array([f["embedding"] for f in tables["frames"].to_pylist()], np.float32)
    for s, segment in enumerate(segments):
        np.testing.assert_allclose(segment["embedding"], frames[2 * s : 2 * s + 2].mean(axis=0), atol=2e-3)
    (answer,) = tables["answers"].to_pylist()
    assert answer["relevance"] == max(e["score"] for e in answer["evidence"])
    assert answer["n_visual_tokens"] == 12 * 16


@pytest.mark.parametrize("killer", [None, 1])
def test_an_item_that_killed_twice_is_tried_clip_by_clip(killer: int | None) -> None:
    """The counter says that two processes died on the item and, where a clip kills, that one died on that clip."""
    made = setup()
    item = an_item(made.recipe, 3)

    def begun(name: str) -> int:
        return 3 if name == f"describe-{item.key}" else 2 if name == f"describe-{item.key}-{killer}" else 1

    row = DescribeStage(made, begun)(decoded_to_row(item_to_row(item), decoded(item), 0.5)).to_pylist()[0]
    receipt = receipt_from_record(row)
    assert receipt.failure is not None
    assert receipt.failure.error_class == "WorkerLost"
    left = [0, 1, 2] if killer is None else [0, 2]
    tables = decode_item(row["staged"])
    assert tables["clips"]["clip_index"].to_pylist() == left
    assert receipt.n_clips == len(left)
    whole = decode_item(
        DescribeStage(made, lambda name: 1)(decoded_to_row(item_to_row(item), decoded(item), 0.5))["staged"][0].as_py()
    )
    same = ["clip_id", "caption", "visual_tokens_per_layer"]
    expected = [r for r in whole["captions"].select(same).to_pylist() if int(r["clip_id"][-5:]) in left]
    assert tables["captions"].select(same).to_pylist() == expected, "alone or together, a clip's caption is the same"


class Killed(BaseException):
    """The end of a process, as far as a stage can tell."""


def test_a_clip_that_kills_costs_that_clip_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two items share a block. The first one's second clip kills whoever describes it, alone or with its neighbours."""
    made = setup()
    mates = [replace(an_item(made.recipe, 3), index=i, n_items=2) for i in range(2)]
    describe = ItemDescriber.rows

    def killing(describer: ItemDescriber, item: Item, frames: Decoded, seconds: dict[str, float]) -> Rows:
        if item.index == 0 and any(clip.clip_index == 1 for clip in frames.clips[int(item.has_context) :]):
            raise Killed
        return describe(describer, item, frames, seconds)

    monkeypatch.setattr(ItemDescriber, "rows", killing)
    attempts, ended = Attempts(), list[Receipt]()
    for process in range(9):
        stage = DescribeStage(made, partial(attempts.begin, process=f"p{process}"))
        ended.clear()
        with contextlib.suppress(Killed):
            for item in mates:
                row = stage(decoded_to_row(item_to_row(item), decoded(item), 0.5))
                ended.append(receipt_from_record(row.to_pylist()[0]))
            break
    assert process == 3, "two deaths with the whole item, one with its second clip, and then it is left out"
    assert [(r.failure and r.failure.error_class, r.n_clips) for r in ended] == [("WorkerLost", 2), (None, 3)]


def test_items_of_a_long_video_leave_its_questions_for_later() -> None:
    made = setup()
    item = an_item(made.recipe, 1, n_items=2)
    row = DescribeStage(made, lambda name: 1)(decoded_to_row(item_to_row(item), decoded(item), 0.5)).to_pylist()[0]
    assert "answers" not in decode_item(row["staged"])


@pytest.mark.parametrize("n_questions", [1, 20])
def test_vision_is_encoded_once_however_many_questions(n_questions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As jobs.ask does it: n clips take n encodings, a whole video of three clips one, of the frames it is shown."""
    encoded: list[int] = []
    encode = adatp.VideoLLM.encode

    def counting(model: adatp.VideoLLM, pixels: torch.Tensor) -> adatp.Visual:
        encoded.append(len(pixels))
        return encode(model, pixels)

    first = setup()
    item = an_item(first.recipe, 3)
    stored = decode_item(
        DescribeStage(first, lambda name: 1)(decoded_to_row(item_to_row(item), decoded(item), 0.5))["staged"][0].as_py()
    )
    asked = [f"Which shape appears in place {k}? {{circle|ring}}" for k in range(n_questions)]
    texts = {Target.answer(text, scope): text for text in asked for scope in ("clip", "video")}
    made = replace(first, recipe=replace(first.recipe, texts=texts, fingerprints=dict.fromkeys([*texts, "embed"], "f")))
    stage = DescribeStage(made, lambda name: 1)
    monkeypatch.setattr(adatp.VideoLLM, "encode", counting)
    clips, segments, fingerprints = stored["clips"], stored["segments"], made.recipe.fingerprints

    of_clips = [s for s in texts if s.endswith(":clip")]
    (again,) = again_items(item.source, clips, segments, of_clips, fingerprints, CLIPS_PER_ITEM)
    rows = decode_item(stage(decoded_to_row(item_to_row(again), decoded(item), 0.5))["staged"][0].as_py())
    assert rows["answers"].num_rows == 3 * n_questions
    assert encoded == [4, 4, 4]

    encoded.clear()
    vectors = {s: v for s, v in embed_questions(made).vectors.items() if s.endswith(":video")}
    (whole,) = answer_items(item.source, clips, segments, vectors, fingerprints)
    frames = decoded(item)
    (shown,) = whole.clips
    together = ClipFrames(
        0,
        *(shown.start_s, shown.end_s, shown.targets_s),
        np.concatenate([clip.frames for clip in frames.clips]),
        *(None, (b"jpg",) * 12),
    )
    row = stage(decoded_to_row(item_to_row(whole), replace(frames, clips=(together,)), 0.5))
    assert decode_item(row["staged"][0].as_py())["answers"].num_rows == n_questions
    assert encoded == [12]


def test_without_prompts_no_video_llm_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(adatp, "load")
    made = setup(caption_prompt=None)
    assert made.recipe.texts  # the question
    silent = Recipe(("sample", "embed"), made.recipe.fingerprints, {})
    stage = DescribeStage(DescribeSetup(**{**made.__dict__, "recipe": silent}), lambda name: 1)
    item = an_item(silent, 1)
    row = stage(decoded_to_row(item_to_row(item), decoded(item), 0.5)).to_pylist()[0]
    assert set(decode_item(row["staged"])) == {"clips", "segments", "frames"}
