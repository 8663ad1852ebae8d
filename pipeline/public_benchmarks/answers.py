"""One row per question and setting: what was asked, what was said, what it cost. The Parquet that a run writes."""

import json
from dataclasses import asdict, dataclass, field

import pyarrow as pa

from pipeline.public_benchmarks.benchmark import Grade, Question
from pipeline.public_benchmarks.settings import Setting


@dataclass(frozen=True)
class Answer:
    """One setting's answer to one question. Times are milliseconds; ratios are pruned over unpruned."""

    benchmark: str
    item_id: str
    task: str
    row: int
    """Place in the task's file: lmms-eval's doc_id."""
    video: str
    part: str
    groups: str
    """Further groups of the item, a JSON object."""
    method: str
    p: float
    prompt: str
    gold: str
    reply: str
    given: str
    correct: bool
    is_parsed: bool
    is_counted: bool
    finish_reason: str = ""
    n_frames: int = 0
    n_segments: int = 0
    n_visual_tokens: int = 0
    n_text_tokens: int = 0
    visual_tokens_per_layer: list[int] = field(default_factory=list)
    llm_flops_ratio: float | None = None
    llm_with_attention_flops_ratio: float | None = None
    end_to_end_flops_ratio: float | None = None
    decode_ms: float | None = None
    """Decoding the video, once for all its questions and settings."""
    vision_ms: float | None = None
    """Encoding its frames, once as well."""
    prefill_ms: float | None = None
    answer_ms: float | None = None
    error: str = ""
    """Why it could not be asked: then it is wrong, or left out of the table by --missing exclude."""


SCHEMA = pa.schema(
    [
        ("benchmark", pa.string()),
        ("item_id", pa.string()),
        ("task", pa.string()),
        ("row", pa.int64()),
        ("video", pa.string()),
        ("part", pa.string()),
        ("groups", pa.string()),
        ("method", pa.string()),
        ("p", pa.float64()),
        ("prompt", pa.string()),
        ("gold", pa.string()),
        ("reply", pa.string()),
        ("given", pa.string()),
        ("correct", pa.bool_()),
        ("is_parsed", pa.bool_()),
        ("is_counted", pa.bool_()),
        ("finish_reason", pa.string()),
        ("n_frames", pa.int32()),
        ("n_segments", pa.int32()),
        ("n_visual_tokens", pa.int32()),
        ("n_text_tokens", pa.int32()),
        ("visual_tokens_per_layer", pa.list_(pa.int32())),
        ("llm_flops_ratio", pa.float64()),
        ("llm_with_attention_flops_ratio", pa.float64()),
        ("end_to_end_flops_ratio", pa.float64()),
        ("decode_ms", pa.float64()),
        ("vision_ms", pa.float64()),
        ("prefill_ms", pa.float64()),
        ("answer_ms", pa.float64()),
        ("error", pa.string()),
    ]
)


def base_answer(benchmark: str, question: Question, setting: Setting, reply: str, grade: Grade) -> Answer:
    """The columns that say what was asked and answered, without what it cost."""
    return Answer(
        benchmark=benchmark,
        item_id=question.item_id,
        task=question.task,
        row=question.row,
        video=question.video,
        part=question.part,
        groups=json.dumps(question.groups, sort_keys=True),
        method=setting.name,
        p=setting.p,
        prompt=question.prompt,
        gold=question.gold,
        reply=reply,
        given=grade.given,
        correct=grade.correct,
        is_parsed=grade.is_parsed,
        is_counted=grade.is_counted,
    )


def to_table(answers: list[Answer]) -> pa.Table:
    return pa.Table.from_pylist([asdict(answer) for answer in answers], schema=SCHEMA)


def from_table(table: pa.Table) -> list[Answer]:
    return [Answer(**record) for record in table.to_pylist()]
