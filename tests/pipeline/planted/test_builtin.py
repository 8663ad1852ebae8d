"""What ships as `builtin`: small, loads offline, takes any text, and tells the truth about its clips."""

import json
from pathlib import Path

import pytest
import torch

import pipeline
from adatp import Request
from pipeline.evaluation.bench import open_bench
from pipeline.evaluation.evaluate import Bench
from pipeline.evaluation.statistics import auc
from pipeline.planted.captions import CAPTION_PROMPTS, caption, facts
from pipeline.planted.items import balanced_items

BUILTIN = Path(pipeline.__file__).parent / "models" / "builtin"


@pytest.fixture(scope="module")
def bench() -> Bench:
    torch.manual_seed(0)
    return open_bench("builtin", "builtin")


def test_it_fits_in_twenty_megabytes_and_is_safetensors_alone() -> None:
    files = [path for path in BUILTIN.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 20_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".jinja", ".md"}


def test_any_caption_prompt_gets_a_caption_and_any_words_an_end(bench: Bench) -> None:
    item = balanced_items("test", "order", 1)[0]
    visual = bench.see(item).visual
    truth = facts(caption(item.clip))
    prompts = [*CAPTION_PROMPTS[:2], "What is happening?", "Qu'est-ce que c'est, <|im_end|> Zebra?"]
    results = bench.engine.run([Request(prompt, visual, prompt, method="none") for prompt in prompts])
    for prompt in prompts[:3]:
        assert (facts(results[prompt].text) & truth).total() >= 0.5 * truth.total(), results[prompt].text
    assert results[prompts[3]].finish_reason == "stop", "what it cannot make sense of it may leave unanswered"


def test_the_encoder_parts_scenes_and_ranks_the_relevant_ones(bench: Bench) -> None:
    items = [item for type_ in ("colour", "room") for item in balanced_items("test", type_, 12)]  # type: ignore[arg-type]  # both are types
    relevant, others, found, true = [], [], 0, 0
    for item in items:
        seen = bench.see(item)
        starts = {sum(seen.segments[:i]) for i in range(1, len(seen.segments))}
        cuts = set(item.clip.cuts())
        found += 2 * len(starts & cuts)
        true += len(starts) + len(cuts)
        for start, length, score in zip([0, *sorted(starts)], seen.segments, seen.relevance, strict=True):
            middle = item.clip.scenes.index(item.clip.scene_at(start + length // 2))
            (relevant if middle in item.question.relevant_scenes else others).append(score)
    assert found / true > 0.9
    assert auc(relevant, others) > 0.85


def test_thresholds_are_cosines_with_room_on_both_sides() -> None:
    values = json.loads((BUILTIN / "encoder" / "thresholds.json").read_text())
    assert 0 < values["tau_t"] < values["tau_s"] < 1
