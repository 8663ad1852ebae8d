"""Describing one item without Ray: rows from the builtin models, and what a killing clip costs."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adatp
from pipeline.config import CLIPS_PER_ITEM, DescribeSetup, IndexConfig, Recipe
from pipeline.describing.item_describer import embed_questions
from pipeline.execution.stages import DescribeStage, WorkerSetup
from pipeline.index.snapshot import Index
from pipeline.index.staging import Rows, decode_item, staged_keys, staged_path
from pipeline.items.item import Item, Receipt
from pipeline.items.stored_clips import again_items, answer_items
from pipeline.items.wire import decoded_to_row, item_to_row, receipt_from_record
from pipeline.models.checkpoints import resolve_model, resolve_thresholds
from pipeline.storage.places import open_storage
from pipeline.types import EMBED, SAMPLE, Bounds, ClipFrames, ClipPlan, Decoded, Source, Target

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


@pytest.fixture
def output(tmp_path: Path) -> str:
    return Index.create(str(tmp_path / "index")).url


def worker_setup(made: DescribeSetup, output: str) -> WorkerSetup:
    return WorkerSetup("every=1s", Bounds(), output, made)


def tables_of(item: Item, output: str) -> Rows:
    return decode_item(open_storage(output).read_bytes(staged_path(item.key)))


def described(
    made: DescribeSetup, item: Item, frames: Decoded, output: str, only: tuple[int, ...] | None = None
) -> tuple[Receipt, Rows]:
    """The item's receipt, and what lies in staging of it."""
    row = DescribeStage(worker_setup(made, output)).describe(decoded_to_row(item_to_row(item), frames, 0.5), only)
    return receipt_from_record(row.to_pylist()[0]), tables_of(item, output)


def test_an_item_becomes_rows_of_every_table(output: str) -> None:
    item = an_item(setup().recipe, 3)
    receipt, tables = described(setup(), item, decoded(item), output)
    assert (receipt.failure, receipt.n_clips, receipt.coverage) == (None, 3, 1.0)
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


@pytest.mark.parametrize("only", [(0, 1, 2), (0, 2)])
def test_an_item_that_killed_twice_is_described_clip_by_clip(only: tuple[int, ...], output: str) -> None:
    item = an_item(setup().recipe, 3)
    receipt, tables = described(setup(), item, decoded(item), output, only)
    assert receipt.failure is not None
    assert receipt.failure.error_class == "WorkerLost"
    assert tables["clips"]["clip_index"].to_pylist() == list(only)
    assert receipt.n_clips == len(only)
    _, whole = described(setup(), item, decoded(item), output)
    same = ["clip_id", "caption", "visual_tokens_per_layer"]
    expected = [r for r in whole["captions"].select(same).to_pylist() if int(r["clip_id"][-5:]) in only]
    assert tables["captions"].select(same).to_pylist() == expected, "alone or together, a clip's caption is the same"


def test_a_trial_leaves_nothing(output: str) -> None:
    item = an_item(setup().recipe, 2)
    stage = DescribeStage(worker_setup(setup(), output))
    stage.describe(decoded_to_row(item_to_row(item), decoded(item), 0.5), (1,), is_trial=True)
    assert not staged_keys(open_storage(output))


def test_items_of_several_threads_are_what_each_is_alone(output: str) -> None:
    """Several in one worker at a time, in any order: the same rows, but for times."""
    made = setup()
    items = [replace(an_item(made.recipe, n), index=n) for n in (1, 3, 2, 4)]
    stage = DescribeStage(worker_setup(made, output))
    with ThreadPoolExecutor(len(items)) as threads:
        rows = [decoded_to_row(item_to_row(item), decoded(item), 0.5) for item in items]
        receipts = [receipt_from_record(row.to_pylist()[0]) for row in threads.map(stage.describe, rows)]
    together = [tables_of(item, output) for item in items]
    assert [receipt.n_clips for receipt in receipts] == [1, 3, 2, 4]
    for item, tables in zip(items, together, strict=True):
        _, alone = described(made, item, decoded(item), output)
        for table in alone:
            apart = [c for c in alone[table].column_names if c not in ("indexed_at", "prefill_ms", "decode_ms")]
            assert tables[table].select(apart).equals(alone[table].select(apart)), table


def test_items_of_a_long_video_leave_its_questions_for_later(output: str) -> None:
    item = an_item(setup().recipe, 1, n_items=2)
    _, tables = described(setup(), item, decoded(item), output)
    assert "answers" not in tables


@pytest.mark.parametrize("n_questions", [1, 20])
def test_vision_is_encoded_once_however_many_questions(
    n_questions: int, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As jobs.ask does it: n clips take n encodings, a whole video of three clips one, of the frames it is shown."""
    encoded: list[int] = []
    encode = adatp.VideoLLM.encode

    def counting(model: adatp.VideoLLM, pixels: torch.Tensor, *args: Any, **options: Any) -> adatp.Visual:
        encoded.append(len(pixels))
        return encode(model, pixels, *args, **options)

    first = setup()
    item = an_item(first.recipe, 3)
    _, stored = described(first, item, decoded(item), output)
    asked = [f"Which shape appears in place {k}? {{circle|ring}}" for k in range(n_questions)]
    texts = {Target.answer(text, scope): text for text in asked for scope in ("clip", "video")}
    made = replace(first, recipe=replace(first.recipe, texts=texts, fingerprints=dict.fromkeys([*texts, EMBED], "f")))
    monkeypatch.setattr(adatp.VideoLLM, "encode", counting)
    clips, segments, fingerprints = stored["clips"], stored["segments"], made.recipe.fingerprints

    of_clips = [s for s in texts if s.endswith(":clip")]
    (again,) = again_items(item.source, clips, segments, of_clips, fingerprints, CLIPS_PER_ITEM)
    _, rows = described(made, again, decoded(item), output)
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
    _, rows = described(made, whole, replace(frames, clips=(together,)), output)
    assert rows["answers"].num_rows == n_questions
    assert encoded == [12]


def test_without_prompts_no_video_llm_is_loaded(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(adatp, "load")
    made = setup(caption_prompt=None)
    assert made.recipe.texts  # the question
    silent = Recipe((SAMPLE, EMBED), made.recipe.fingerprints, {})
    item = an_item(silent, 1)
    _, tables = described(replace(made, recipe=silent), item, decoded(item), output)
    assert set(tables) == {"clips", "segments", "frames"}
