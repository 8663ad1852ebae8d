"""VideoMME (without subtitles): 900 videos, three questions each, four options, by length of video."""

from pathlib import Path

from pipeline.public_benchmarks.benchmark import Benchmark, Grade, Harness, Loaded, Question, stem_of, without_letter
from pipeline.public_benchmarks.extraction import letter_2025, letter_2026
from pipeline.public_benchmarks.rows import need_files, odd_count, option_texts, read_parquet, text, unique

COLUMNS = (
    "video_id", "duration", "domain", "sub_category", "url", "videoID", "question_id", "task_type", "question",
    "options", "answer",
)  # fmt: skip
HEAD = (
    "Select the best answer to the following multiple-choice question based on the video and the subtitles. "
    "Respond with only the letter (A, B, C, or D) of the correct option."
)
TAILS = {
    "default": "\nAnswer with the option's letter from the given choices directly.",
    "llava_vid": "The best answer is:",
}


def prompt_of(question: str, options: list[str], variant: str) -> str:
    """The task `videomme` of lmms-eval; the words about subtitles stand there although none are given."""
    listed = "\n".join(options)
    if variant == "qwen3_vl":
        return f"Question: {question}\nOptions:\n{listed}\nAnswer with the option letter only."
    return f"{HEAD}\n{question}\n{listed}\n{TAILS[variant]}"


def load(folder: Path, variant: str) -> Loaded:
    files = need_files("VideoMME", folder, "videomme/test-*.parquet", "test-*.parquet", "data/test-*.parquet")
    rows, notice = read_parquet(files, COLUMNS)
    ids = unique([str(row["question_id"]) for row in rows])
    questions = []
    for place, (row, item_id) in enumerate(zip(rows, ids, strict=True)):
        (question, video, gold), fault = text(row, "question", "videoID", "answer")
        options, no_options = option_texts(row, "options")
        questions.append(
            Question(
                item_id=item_id,
                row=place,
                task="videomme",
                videos=tuple(f"data/{video}{suffix}" for suffix in (".mp4", ".MP4", ".mkv")),
                part=str(row["duration"]),
                prompt=prompt_of(question, options, variant),
                stem=stem_of(question),
                options=tuple(map(without_letter, options)),
                gold=gold,
                max_new_tokens=16,
                groups={name: str(row[name]) for name in ("domain", "sub_category", "task_type")},
                fault=fault or no_options,
                odd=odd_count(options, 4),
            )
        )
    return Loaded(tuple(questions), (notice,) if notice else ())


def grade(question: Question, reply: str, harness: Harness) -> Grade:
    given = letter_2026(reply, "ABCD") if harness == "2026" else letter_2025(reply, "ABCD")
    return Grade(given, given == question.gold, is_parsed=bool(given))


VIDEOMME = Benchmark(
    "videomme", "VideoMME", load, grade, macro=False, size=(2700, 900, 254.0), variants=("llava_vid", "qwen3_vl")
)
