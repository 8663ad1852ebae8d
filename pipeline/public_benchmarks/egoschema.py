"""EgoSchema, the subset of 500 questions whose answers are public: three minutes each, five options."""

import json
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.public_benchmarks.benchmark import (
    LETTERS,
    Benchmark,
    Grade,
    Harness,
    Loaded,
    Question,
    stem_of,
    without_letter,
)
from pipeline.public_benchmarks.extraction import drawn, letter_egoschema
from pipeline.public_benchmarks.rows import find_files, need_files, option_texts, read_parquet, text, unique

COLUMNS = ("video_idx", "question", "option", "answer")
TAIL = "\nAnswer with the option's letter from the given choices directly."


def load(folder: Path, variant: str) -> Loaded:
    if not find_files(folder, "Subset/*.parquet", "test-*.parquet") and find_files(folder, "GENERATION/*.parquet"):
        raise UsageError(
            f"--data {folder}: only GENERATION, whose answers are not public; expected Subset/test-*.parquet"
        )
    files = need_files("EgoSchema", folder, "Subset/test-*.parquet", "Subset/*.parquet", "test-*.parquet")
    rows, notice = read_parquet(files, COLUMNS, ("question_idx",))
    ids = unique([str(row.get("question_idx") or row["video_idx"]) for row in rows])
    questions = []
    for place, (row, item_id) in enumerate(zip(rows, ids, strict=True)):
        (question, video, answer), fault = text(row, "question", "video_idx", "answer")
        options, no_options = option_texts(row, "option")
        gold = LETTERS[int(answer)] if answer.strip() in ("0", "1", "2", "3", "4") else ""
        questions.append(
            Question(
                item_id=item_id,
                row=place,
                task="egoschema_subset",
                videos=tuple(f"videos/{video}{suffix}" for suffix in (".mp4", ".MP4")),
                part="subset",
                prompt="\n".join([question, *options]) + TAIL,
                stem=stem_of(question),
                options=tuple(map(without_letter, options)),
                gold=gold,
                max_new_tokens=16,
                groups={"options": json.dumps([option.strip() for option in options])},
                fault=fault
                or no_options
                or ("" if len(options) == 5 else f"{len(options)} options; expected 5")
                or ("" if gold else f"answer is {answer!r}; expected 0 to 4"),
            )
        )
    return Loaded(tuple(questions), (notice,) if notice else ())


def grade(question: Question, reply: str, harness: Harness) -> Grade:
    """lmms-eval draws at random where it reads no letter; here the draw hangs on the item."""
    given = letter_egoschema(reply, json.loads(question.groups["options"]), question.letters)
    shown = given or drawn(question.item_id, question.letters)
    return Grade(shown, shown == question.gold, is_parsed=bool(given))


EGOSCHEMA = Benchmark("egoschema", "EgoSchema", load, grade, macro=False, size=(500, 500, 25.0))
