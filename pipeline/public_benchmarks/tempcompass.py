"""TempCompass: multiple choice, yes or no, and caption matching. The score is the mean of the three tasks.

lmms-eval asks a language model on the network about replies that its rules cannot read. Here such a reply counts as
unreadable and wrong, and the table says how many there were. Its captioning task needs that judge and is left out.
"""

from pathlib import Path

from pipeline.public_benchmarks.benchmark import Benchmark, Grade, Harness, Loaded, Question, option_lines, stem_of
from pipeline.public_benchmarks.rows import Row, find_files, need_files, read_parquet, text

TASKS = {
    "multi-choice": ("tempcompass_multi_choice", "\nPlease directly give the best option:"),
    "yes_no": ("tempcompass_yes_no", "\nPlease answer yes or no:"),
    "caption_matching": ("tempcompass_caption_matching", "\nPlease directly give the best option:"),
}
COLUMNS = ("video_id", "question", "answer", "dim")


def load(folder: Path, variant: str) -> Loaded:
    need_files("TempCompass", folder, *(f"{task}/test-*.parquet" for task in TASKS))
    questions: list[Question] = []
    notices: list[str] = []
    for task in TASKS:
        files = find_files(folder, f"{task}/test-*.parquet")
        if not files:
            notices.append(f"{task}/test-*.parquet is not in the folder: the task is left out")
            continue
        rows, notice = read_parquet(files, COLUMNS, ("strategy",))
        notices += [notice] if notice else []
        questions += [_question(task, place, row) for place, row in enumerate(rows)]
    if find_files(folder, "captioning/test-*.parquet"):
        notices.append("captioning is graded by a language model on the network: left out")
    return Loaded(tuple(questions), tuple(notices))


def _question(task: str, place: int, row: Row) -> Question:
    (question, video, answer, dim), fault = text(row, "question", "video_id", "answer", "dim")
    name, tail = TASKS[task]
    options = ("yes", "no") if task == "yes_no" else option_lines(question)
    return Question(
        item_id=f"{task}/{place}",
        row=place,
        task=name,
        videos=(f"videos/{video}.mp4",),
        part=task,
        prompt=question + tail,
        stem=stem_of(question),
        options=options,
        gold=answer,
        right=answer if task == "yes_no" else _letter_of(answer),
        max_new_tokens=1024,
        groups={"dim": dim, "question": question},
        fault=fault or ("" if len(options) >= 2 else f"{len(options)} options in its question; expected at least 2"),
    )


def _letter_of(answer: str) -> str:
    """ "B. faster" -> "B"; "Caption B: it goes faster" -> "B"."""
    name = answer.split(":")[0].split()[-1:] if ": " in answer else [answer[:1]]
    return name[0] if name else ""


def grade(question: Question, reply: str, harness: Harness) -> Grade:
    if question.part == "yes_no":
        lowered = reply.lower()
        given = "yes" if lowered.startswith("yes") else "no" if lowered.startswith("no") else ""
        return Grade(given, given == question.gold, is_parsed=bool(given))
    if question.part == "caption_matching":
        return _grade_caption(question, reply)
    if reply == question.gold:
        return Grade(reply, True)
    starts = reply[:2] in {f"{letter}{mark}" for letter in "ABCD" for mark in ".)"}
    if starts or reply in ("A", "B", "C", "D"):
        return Grade(reply[0], reply[0] == question.gold[0])
    return Grade("", False, is_parsed=False)


def _grade_caption(question: Question, reply: str) -> Grade:
    """A reply is read where it is an option's whole line, its text, or its name with or without its kind."""
    named = [line.split(": ") for line in question.groups["question"].split("\n")[1:] if ": " in line]
    lines = [line for line in question.groups["question"].split("\n")[1:] if line == reply]
    after_bracket = reply.split(") ")[1] if ") " in reply else reply
    texts = [parts[1] for parts in named if parts[1] in (reply, after_bracket)]
    names = [parts[0] for parts in named] + [_without_kind(parts[0]) for parts in named]
    names = [name for name in names if name in (reply, reply.replace(".", ""))]
    given = ([*lines[-1:], *texts[-1:], *names[-1:]] or [""])[-1]
    parts = question.gold.split(": ")
    right = {question.gold, question.gold.split(":")[0], *parts[1:2], *parts[0].split()[1:2]}
    return Grade(given, bool(given) and given in right, is_parsed=bool(given))


def _without_kind(name: str) -> str:
    for kind in ("Sentence ", "Option ", "Caption "):
        name = name.replace(kind, "")
    return name


TEMPCOMPASS = Benchmark("tempcompass", "TempCompass", load, grade, macro=True, size=(7540, 410, 1.5))
