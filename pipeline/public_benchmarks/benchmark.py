"""What a published benchmark is: where its rows lie, how a row becomes a question, and how a reply is graded.

Each benchmark is one file beside this one. Prompts, extraction and aggregation follow lmms-eval 0.7.3; the nightly
tests compare them with lmms-eval's own functions, row by row.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Harness = Literal["2026", "2025"]
"""Whose extraction rules: lmms-eval from 0.7.2 on ("2026"), or 0.3.3 to 0.7.1 ("2025"), which the paper used."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_OPTION_LINE = re.compile(r"\s*(\(?[A-H][.):]|(Sentence|Option|Caption) [A-H]:)")
_LETTER = re.compile(r"\s*\(?([A-H])[.):]\s*")


@dataclass(frozen=True)
class Question:
    """One row of a benchmark, ready to be asked."""

    item_id: str
    row: int
    """Place in its file: lmms-eval's doc_id."""
    task: str
    """lmms-eval's task name."""
    videos: tuple[str, ...]
    """Paths below the data folder where the video may lie, in the order in which they are tried."""
    part: str
    """The group whose accuracy the benchmark reports: a duration, or a type of task."""
    prompt: str
    """What lmms-eval would show the model."""
    stem: str
    """The question without its options: what the relevance of a segment is measured against."""
    options: tuple[str, ...]
    """Texts of the options without their letters."""
    gold: str
    """The right answer as the benchmark grades it: a letter, yes or no, or a full option."""
    max_new_tokens: int
    right: str = ""
    """Which of `names` is right, where `gold` is written otherwise."""
    groups: dict[str, str] = field(default_factory=dict)
    fault: str = ""
    """Why the row cannot be asked. It is listed, and counted as wrong or left out."""
    odd: str = ""
    """What departs from the published layout, though the row can be asked. It is listed."""

    @property
    def video(self) -> str:
        """Names the video in tables and lists, and is the cluster of statistics: questions of a video hang together."""
        return self.videos[0] if self.videos else ""

    @property
    def key(self) -> str:
        """Names the question in a run, and decides its random draws; lmms-eval's task and doc_id."""
        return f"{self.task}/{self.row}"

    @property
    def letters(self) -> str:
        return LETTERS[: len(self.options)]

    @property
    def names(self) -> tuple[str, ...]:
        """What the options are called: their letters, or yes and no themselves."""
        return self.options if self.options == ("yes", "no") else tuple(self.letters)


@dataclass(frozen=True)
class Grade:
    """What was read from a reply."""

    given: str
    """The answer that was extracted; for `is_parsed` False the one that was drawn, or empty."""
    correct: bool
    is_parsed: bool = True
    is_counted: bool = True
    """False leaves the item out of the denominator (MVBench does so with empty replies)."""


@dataclass(frozen=True)
class Loaded:
    """A benchmark's questions, and what a person should know about its files, a line each."""

    questions: tuple[Question, ...]
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Benchmark:
    """A published benchmark.

    Attributes:
        load: data folder and prompt variant -> questions. Raises UsageError when files or columns are missing.
        grade: question, reply, harness -> grade.
        macro: True reports the mean of the parts' accuracies, False the share of all questions.
        parts: what the mean is over. Of MLVU all seven, also when some have no row; empty: those that have rows.
        variants: prompt variants besides "default".
        size: questions, videos and hours in the published set, for the expected cost.
    """

    name: str
    title: str
    load: Callable[[Path, str], Loaded]
    grade: Callable[[Question, str, Harness], Grade]
    macro: bool
    size: tuple[int, int, float]
    parts: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()


def stem_of(question: str) -> str:
    """The question's text without the lettered options that follow it."""
    lines = question.split("\n")
    return "\n".join(lines[: _end_of_stem(lines)]).strip()


def option_lines(question: str) -> tuple[str, ...]:
    """The options that a question's text ends with, without letters."""
    lines = question.split("\n")
    return tuple(without_letter(line) for line in lines[_end_of_stem(lines) :] if line.strip())


def _end_of_stem(lines: Sequence[str]) -> int:
    end = len(lines)
    while end > 1 and (not lines[end - 1].strip() or _OPTION_LINE.match(lines[end - 1])):
        end -= 1
    return end


def without_letter(option: str) -> str:
    """ "B. a dog" -> "a dog"; "(B) a dog" and "Caption B: a dog" likewise."""
    named = re.match(r"\s*(Sentence|Option|Caption) [A-H]:\s*", option)
    match = named or _LETTER.match(option)
    return option[match.end() :] if match else option
