"""One benchmark under all settings: load, plan, ask what is left, keep, grade. This file tells it in that order.

Every answered video becomes one file under OUTPUT/parts, complete or absent. The same command after a crash asks only
what has none; a video or question that changed, or another configuration, has another name there.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.models.checkpoints import ModelFiles
from pipeline.public_benchmarks.answers import Answer, base_answer
from pipeline.public_benchmarks.asker import Ask, How, ModelChoice
from pipeline.public_benchmarks.benchmark import Benchmark, Grade, Harness, Loaded, Question
from pipeline.public_benchmarks.settings import Setting
from pipeline.public_benchmarks.stages import ANSWERED_SCHEMA, video_row
from pipeline.types import digest

VERSION = "1"
"""Raised by hand when the same configuration would give other replies."""

Say = Callable[[str], None]
Execute = Callable[[Sequence[pa.Table]], Iterator[pa.Table]]
"""Rows of videos (VIDEO_SCHEMA) -> rows of answers (ANSWERED_SCHEMA), in any order."""


@dataclass(frozen=True)
class Job:
    """What one run asks. All of it but `harness` and `limit` decides replies, so it names the parts."""

    benchmark: Benchmark
    data: Path
    choice: ModelChoice
    settings: tuple[Setting, ...]
    how: How
    sampling: str
    variant: str
    harness: Harness
    output: Path
    limit: int | None = None

    def fingerprint(self, model: ModelFiles, encoder: ModelFiles) -> str:
        decides = (
            VERSION, self.benchmark.name, model.identity.id, repr(model.identity.resize), encoder.identity.id,
            repr(self.choice.thresholds), self.choice.device, repr(self.settings), self.how, self.sampling,
        )  # fmt: skip
        return digest(*decides)


@dataclass(frozen=True)
class Video:
    """A video with its questions; `key` names its part."""

    key: str
    path: Path
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Plan:
    """What there is to ask: videos that are there, and questions that cannot be asked, with their fault."""

    videos: tuple[Video, ...]
    faulty: tuple[Question, ...]
    loaded: Loaded

    @property
    def questions(self) -> tuple[Question, ...]:
        return self.loaded.questions


def plan_job(job: Job, fingerprint: str) -> Plan:
    """Read the benchmark's files and find its videos. Raises UsageError."""
    loaded = job.benchmark.load(job.data, job.variant)
    if job.limit is not None:
        loaded = replace(loaded, questions=loaded.questions[: job.limit])
    if job.how != "generate":
        loaded = replace(loaded, questions=tuple(map(_needs_options, loaded.questions)))
    found = {names: _find_video(job.data, names) for names in {question.videos for question in loaded.questions}}
    faulty, by_path = [], dict[Path, list[Question]]()
    for question in loaded.questions:
        place = found[question.videos]
        if question.fault or isinstance(place, str):
            faulty.append(replace(question, fault=question.fault or str(place)))
        else:
            by_path.setdefault(place, []).append(question)
    videos = [Video(_key(job, fingerprint, path, asked), path, tuple(asked)) for path, asked in by_path.items()]
    return Plan(tuple(videos), tuple(faulty), loaded)


def _needs_options(question: Question) -> Question:
    distinct = len(set(question.options)) == len(question.options) and all(question.options)
    fault = "" if distinct else "its options are not distinct, so no likelihood tells them apart"
    return replace(question, fault=question.fault or fault)


def _find_video(folder: Path, names: Sequence[str]) -> Path | str:
    """The first of the places where the video may lie that is a file, else why there is none."""
    for name in names:
        if "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
            return f"video {name[:80]!r}: its path leaves the data folder; it was not opened"
        with suppress(OSError):
            if (place := folder / name).is_file():
                return place
            if place.is_dir():
                return f"video {name}: a folder, not a file"
    return f"missing video: {names[0]}" if names else "its video has no name"


def _key(job: Job, fingerprint: str, path: Path, questions: Sequence[Question]) -> str:
    status = path.stat()
    file = f"{path.relative_to(job.data)}|{status.st_size}|{status.st_mtime_ns}"
    return digest(fingerprint, file, json.dumps([asdict(ask_of(question, job.how)) for question in questions]))


def ask_of(question: Question, how: How) -> Ask:
    """The question as the model gets it."""
    if how == "options":
        return Ask(question.key, question.stem, question.stem, question.options, 1)
    return Ask(
        question.key,
        question.prompt,
        question.stem,
        None if how == "generate" else question.names,
        question.max_new_tokens,
    )


def answer_all(job: Job, plan: Plan, execute: Execute, say: Say) -> list[Answer]:
    """Ask what has no part yet, then grade all: one answer per question and setting, in the benchmark's order."""
    parts = Parts(job.output / "parts")
    waiting = [video for video in plan.videos if not parts.has(video.key)]
    say(f"{len(plan.videos)} videos, {len(plan.videos) - len(waiting)} of them answered before, {len(waiting)} to ask")
    failed: dict[str, pa.Table] = {}
    rows = [video_row(v.key, str(v.path), [ask_of(q, job.how) for q in v.questions]) for v in waiting]
    for done, answered in enumerate(execute(rows) if rows else (), 1):
        key = answered["key"][0].as_py()
        if answered["failure"][0].as_py():
            failed[key] = answered  # not kept: the next run tries it again
        else:
            parts.keep(key, answered)
        if done % max(1, len(rows) // 20) == 0 or done == len(rows):
            say(f"{done} of {len(rows)} videos asked")
    answers: dict[str, list[Answer]] = {}
    for video in plan.videos:
        record = (failed[video.key] if video.key in failed else parts.read(video.key)).to_pylist()[0]
        answers |= {q.item_id: list(_graded(job, q, record)) for q in video.questions}
    answers |= {
        question.item_id: [_lost(job, question, s, question.fault) for s in job.settings] for question in plan.faulty
    }
    return [answer for question in plan.questions for answer in answers[question.item_id]]


class Parts:
    """One file per answered video. Written beside, flushed, then renamed: a part is complete or absent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("*.writing"):
            left.unlink()

    def has(self, key: str) -> bool:
        return self._place(key).is_file()

    def read(self, key: str) -> pa.Table:
        return pq.read_table(self._place(key), schema=ANSWERED_SCHEMA)

    def keep(self, key: str, row: pa.Table) -> None:
        beside = self._folder / f"{key}.writing"
        with beside.open("wb") as file:
            pq.write_table(row, file)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(self._place(key))

    def _place(self, key: str) -> Path:
        return self._folder / f"{key}.parquet"


def _graded(job: Job, question: Question, record: dict[str, object]) -> Iterable[Answer]:
    if failure := str(record["failure"]):
        return [_lost(job, question, setting, failure) for setting in job.settings]
    replies: list[dict[str, object]] = record["replies"]  # type: ignore[assignment]  # ANSWERED_SCHEMA says so
    mine = {int(str(r["setting"])): r for r in replies if r["key"] == question.key}
    return [_answer(job, question, setting, mine[place], record) for place, setting in enumerate(job.settings)]


def _answer(
    job: Job, question: Question, setting: Setting, reply: dict[str, object], record: dict[str, object]
) -> Answer:
    if reply["error"]:
        return _lost(job, question, setting, str(reply["error"]))
    said = str(reply["reply"])
    grade = grade_reply(job.benchmark, question, said, job.how, job.harness)
    costs = {name: reply[name] for name in reply if name not in ("key", "setting", "reply", "error")}
    shared = {name: record[name] for name in ("n_frames", "decode_ms", "vision_ms")}
    return replace(base_answer(job.benchmark.name, question, setting, said, grade), **costs, **shared)  # type: ignore[arg-type]  # typed by the schema


def grade_reply(benchmark: Benchmark, question: Question, reply: str, how: How, harness: Harness) -> Grade:
    """Extraction reads what was generated; a likelihood's choice needs none."""
    if how == "generate":
        return benchmark.grade(question, reply, harness)
    chosen = question.names[question.options.index(reply)] if how == "options" else reply
    return Grade(chosen, chosen == (question.right or question.gold))


def _lost(job: Job, question: Question, setting: Setting, why: str) -> Answer:
    return replace(base_answer(job.benchmark.name, question, setting, "", Grade("", False, False)), error=why)
