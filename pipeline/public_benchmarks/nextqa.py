"""NExT-QA, multiple choice, test split: five options and no instruction at all, as lmms-eval asks it."""

from pathlib import Path

from pipeline.public_benchmarks.benchmark import LETTERS, Benchmark, Grade, Harness, Loaded, Question, stem_of
from pipeline.public_benchmarks.extraction import drawn, letter_nextqa
from pipeline.public_benchmarks.rows import need_files, read_parquet, text, unique

OPTIONS = ("a0", "a1", "a2", "a3", "a4")
COLUMNS = ("video", "question", "answer", "qid", "type", *OPTIONS)
OPTIONAL = ("frame_count", "width", "height", "additional_ref_answer")
KINDS = {"C": "causal", "T": "temporal", "D": "descriptive"}


def load(folder: Path, variant: str) -> Loaded:
    files = need_files("NExT-QA", folder, "MC/test-*.parquet", "test-*.parquet")
    rows, notice = read_parquet(files, COLUMNS, OPTIONAL)
    ids = unique([f"{row['video']}/{row['qid']}" for row in rows])
    questions = []
    for place, (row, item_id) in enumerate(zip(rows, ids, strict=True)):
        (question, video, answer, *options), fault = text(row, "question", "video", "answer", *OPTIONS)
        options, name = [option.strip() for option in options], video if video.endswith(".mp4") else f"{video}.mp4"
        gold = LETTERS[int(answer)] if answer.strip() in ("0", "1", "2", "3", "4") else ""
        listed = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
        questions.append(
            Question(
                item_id=item_id,
                row=place,
                task="nextqa_mc_test",
                videos=(f"NExTVideo/{name}", f"NExTVideo/{video}.MP4"),
                part=KINDS.get(str(row["type"])[:1], str(row["type"])),
                prompt="\n".join([question.strip(), *listed]),
                stem=stem_of(question),
                options=tuple(options),
                gold=gold,
                max_new_tokens=1024,
                groups={"type": str(row["type"])},
                fault=fault or ("" if gold else f"answer is {answer!r}; expected 0 to 4"),
            )
        )
    return Loaded(tuple(questions), (notice,) if notice else ())


def grade(question: Question, reply: str, harness: Harness) -> Grade:
    """lmms-eval draws at random where it reads no letter; here the draw hangs on the item."""
    given = letter_nextqa(reply, question.options, question.letters)
    shown = given or drawn(question.item_id, question.letters)
    return Grade(shown, shown == question.gold, is_parsed=bool(given))


NEXTQA = Benchmark("nextqa", "NExT-QA", load, grade, macro=False, size=(8564, 1000, 11.0))
