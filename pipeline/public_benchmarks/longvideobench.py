"""LongVideoBench, validation split without subtitles: four or five options, by length of video."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.public_benchmarks.benchmark import LETTERS, Benchmark, Grade, Harness, Loaded, Question, stem_of
from pipeline.public_benchmarks.extraction import drawn, letter_longvideobench
from pipeline.public_benchmarks.rows import Row, find_files, need_files, read_json, read_parquet, text, unique

COMMON = (
    "video_id", "id", "video_path", "subtitle_path", "correct_choice", "question", "duration", "duration_group",
    "question_category", "topic_category", "starting_timestamp_for_subtitles",
)  # fmt: skip
OPTIONS = ("option0", "option1", "option2", "option3", "option4")
NONE = "N/A"
TAIL = "Answer with the option's letter from the given choices directly.\n"
_NEEDED = ("id", "video_path", "correct_choice", "question", "duration_group", "question_category")
_PATTERNS = (
    "validation-*.parquet", "data/validation-*.parquet", "lvb_val.json", "longvideobench/validation-*.parquet",
)  # fmt: skip


def load(folder: Path, variant: str) -> Loaded:
    files = need_files("LongVideoBench", folder, *_PATTERNS)
    if files[0].suffix == ".json":
        rows, notice = read_json(files[0], [*_NEEDED, "candidates"], COMMON)
    else:
        rows, notice = read_parquet(files, [*_NEEDED, *OPTIONS[:4]], [*COMMON, OPTIONS[4]])
    notices = [notice] if notice else []
    if find_files(folder, "videos.tar.part.*") and not (folder / "videos").is_dir():
        notices.append("the videos are still in parts: cat videos.tar.part.* | tar x")
    ids = unique([str(row["id"]) for row in rows])
    return Loaded(tuple(map(_question, range(len(rows)), rows, ids)), tuple(notices))


def _question(place: int, row: Row, item_id: str) -> Question:
    (question, video, _, part), fault = text(row, "question", "video_path", "correct_choice", "duration_group")
    raw = row["candidates"] if "candidates" in row else [row.get(name) for name in OPTIONS]
    given = raw if isinstance(raw, list) else []
    options = [str(option) for option in given if option is not None and option != NONE]
    right = row.get("correct_choice")
    gold = LETTERS[right] if isinstance(right, int) and 0 <= right < len(OPTIONS) else ""
    return Question(
        item_id=item_id,
        row=place,
        task="longvideobench_val_v",
        videos=(f"videos/{video}", f"longvideobench/videos/{video}"),
        part=part,
        prompt=f"{question}\n" + "\n".join(f"{x}. {o}" for x, o in zip(LETTERS, options, strict=False)) + f"\n{TAIL}",
        stem=stem_of(question),
        options=tuple(options),
        gold=gold,
        max_new_tokens=32,
        groups={"question_category": str(row["question_category"])},
        fault=fault
        or ("" if len(options) >= 2 else f"{len(options)} options; expected four or five")
        or ("" if gold else f"correct_choice is {right!r}; expected 0 to 4"),
        odd=_odd(options, given, gold),
    )


def _odd(options: Sequence[str], given: Sequence[object], gold: str) -> str:
    if len(options) not in (4, 5):
        return f"{len(options)} options; expected 4 or 5; asked as it stands"
    if any(option in (None, NONE) for option in given[: len(options)]):
        return "an option is missing before the last: letters are those of what is left"
    return "" if gold in LETTERS[: len(options)] else f"its answer {gold} is none of its options: no reply can be right"


def grade(question: Question, reply: str, harness: Harness) -> Grade:
    """lmms-eval draws at random where it reads no letter; here the draw hangs on the item, so every run agrees."""
    given = letter_longvideobench(reply)
    shown = given or drawn(question.item_id, question.letters)
    return Grade(shown, shown == question.gold, is_parsed=bool(given))


LONGVIDEOBENCH = Benchmark(
    "longvideobench", "LongVideoBench", load, grade, macro=False, size=(1337, 753, 97.0)
)  # fmt: skip
