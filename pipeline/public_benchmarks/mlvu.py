"""MLVU dev, multiple choice: seven types of task, reported as the mean of their accuracies.

Both distributions are read: the re-pack that lmms-eval uses (one Parquet file, videos beside it), and the original
(`json/*.json` and `video/*/`), from which the same prompt is built.
"""

from pathlib import Path

from pipeline.public_benchmarks.benchmark import (
    LETTERS,
    Benchmark,
    Grade,
    Harness,
    Loaded,
    Question,
    option_lines,
    stem_of,
)
from pipeline.public_benchmarks.extraction import before_bracket_2025, letter_2026
from pipeline.public_benchmarks.rows import (
    Row,
    find_files,
    need_files,
    odd_count,
    option_texts,
    read_json,
    read_parquet,
    text,
    unique,
)

COLUMNS = ("video_name", "duration", "question", "candidates", "answer", "task_type", "question_id")
KEYS = ("video", "duration", "question", "candidates", "answer", "question_type")
TASKS = ("anomaly_reco", "count", "ego", "needle", "order", "plotQA", "topic_reasoning")
_FOLDERS = {"findNeedle": "needle"}  # the original's name of the task in its rows -> the re-pack's
TAIL = "\nOnly give the best option.\nBest option: ("


def load(folder: Path, variant: str) -> Loaded:
    if find_files(folder, "mlvu/test-*.parquet", "test-*.parquet") or not find_files(
        folder, "json/*.json", "MLVU/json/*.json"
    ):
        files = need_files("MLVU", folder, "mlvu/test-*.parquet", "test-*.parquet", "json/*.json")
        rows, notice = read_parquet(files, COLUMNS)
        return Loaded(tuple(map(_repacked, range(len(rows)), rows, _ids(rows))), (notice,) if notice else ())
    return _load_original(folder)


def _ids(rows: list[Row]) -> list[str]:
    return unique([f"{row['task_type']}/{row['question_id']}" for row in rows])


def _load_original(folder: Path) -> Loaded:
    questions: list[Question] = []
    notices: list[str] = []
    for file in find_files(folder, "json/*.json", "MLVU/json/*.json"):
        rows, notice = read_json(file, KEYS)
        notices += [notice] if notice else []
        chosen = [row for row in rows if row.get("candidates")]
        if len(chosen) < len(rows):
            notices.append(f"{file.name}: {len(rows) - len(chosen)} rows without options: generation tasks, left out")
        root = file.parent.parent.relative_to(folder)
        for row in chosen:
            questions.append(_original(len(questions), row, str(root / "video" / file.stem), file.stem))
    return Loaded(tuple(questions), tuple(notices))


def _repacked(place: int, row: Row, item_id: str) -> Question:
    (question, video, answer, part), fault = text(row, "question", "video_name", "answer", "task_type")
    options, no_options = option_texts(row, "candidates")
    gold = answer if len(answer) == 1 and answer in LETTERS[:8] else _letter_of(answer, options)
    stands_in_question = option_lines(question)
    return Question(
        item_id=item_id,
        row=place,
        task="mlvu_dev",
        videos=(video, f"mlvu/{video}"),
        part=part,
        prompt=question + TAIL,
        stem=stem_of(question),
        options=tuple(options),
        gold=gold,
        max_new_tokens=16,
        fault=fault or no_options or ("" if part in TASKS else f"task_type is {part!r}; expected {', '.join(TASKS)}"),
        odd=odd_count(options, 4)
        or ("" if gold else f"answer {answer[:60]!r} is no letter and none of the options: no reply can be right")
        or ("" if stands_in_question else "its question holds no lettered options; asked as it stands"),
    )


def _original(place: int, row: Row, folder: str, stem: str) -> Question:
    (question, video, answer, kind), fault = text(row, "question", "video", "answer", "question_type")
    options, no_options = option_texts(row, "candidates")
    part = _FOLDERS.get(kind, kind)
    listed = "\n".join(f"({letter}) {option}" for letter, option in zip(LETTERS, options, strict=False))
    gold = _letter_of(answer, options)
    return Question(
        item_id=f"{stem}/{place}",
        row=place,
        task="mlvu_dev",
        videos=(f"{folder}/{video}",),
        part=part,
        prompt=f"{question}\n{listed}{TAIL}",
        stem=stem_of(question),
        options=tuple(options),
        gold=gold,
        max_new_tokens=16,
        fault=fault or no_options or ("" if part in TASKS else f"question_type is {kind!r}; expected a known task"),
        odd=odd_count(options, 4)
        or ("" if gold else f"answer {answer[:60]!r} is none of the options: no reply can be right"),
    )


def _letter_of(answer: str, options: list[str]) -> str:
    return LETTERS[options.index(answer)] if answer in options else ""


def grade(question: Question, reply: str, harness: Harness) -> Grade:
    given = letter_2026(reply, "ABCD") if harness == "2026" else before_bracket_2025(reply)
    return Grade(given, bool(given) and given == question.gold, is_parsed=len(given) == 1 and given in "ABCD")


MLVU = Benchmark("mlvu", "MLVU", load, grade, macro=True, size=(2174, 1242, 320.0), parts=TASKS)
