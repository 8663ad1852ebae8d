"""MVBench: twenty tasks of 200 short clips. The score is the plain mean of the tasks, as papers report it."""

from pathlib import Path

from pipeline.public_benchmarks.benchmark import LETTERS, Benchmark, Grade, Harness, Loaded, Question, stem_of
from pipeline.public_benchmarks.extraction import normal_mvbench
from pipeline.public_benchmarks.rows import Row, find_files, need_files, option_texts, read_json, read_parquet, text

KEYS = ("video", "question", "candidates", "answer")
OPTIONAL = ("start", "end", "fps", "accurate_start", "accurate_end", "subtitle", "question_id", "type")
FOLDERS = {
    "object_interaction": "star/Charades_segment",
    "action_sequence": "star/Charades_segment",
    "action_prediction": "star/Charades_segment",
    "action_localization": "sta/sta_video_segment",
    "moving_count": "clevrer/video_validation",
    "fine_grained_pose": "nturgbd_convert",
    "character_order": "perception/videos",
    "object_shuffle": "perception/videos",
    "egocentric_navigation": "vlnqa",
    "moving_direction": "clevrer/video_validation",
    "episodic_reasoning": "tvqa/video_fps3_hq_segment",
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "scene_transition": "scene_qa/video",
    "state_change": "perception/videos",
    "moving_attribute": "clevrer/video_validation",
    "action_antonym": "ssv2_video_mp4",
    "unexpected_action": "FunQA_test/test",
    "counterfactual_inference": "clevrer/video_validation",
    "object_existence": "clevrer/video_validation",
    "action_count": "perception/videos",
}
"""Task -> folder of its videos below `mvbench_video` (lmms-eval) or `video` (the original)."""
_ROOTS = ("", "video/", "mvbench_video/", "mvbench_video/data0613/", "data0613/")


def load(folder: Path, variant: str) -> Loaded:
    files = need_files("MVBench", folder, "json/*.json", "*/train-*.parquet", "*.json")
    questions: list[Question] = []
    notices: list[str] = []
    for file in files:
        task = file.parent.name if file.suffix == ".parquet" else file.stem
        if task not in FOLDERS:
            notices.append(f"{file.name}: {task} is no task of MVBench, left out")
            continue
        reader = read_json if file.suffix == ".json" else read_parquet
        rows, notice = reader(file if file.suffix == ".json" else [file], KEYS, OPTIONAL)  # type: ignore[arg-type]  # matched
        notices += [notice] if notice else []
        questions += [_question(task, place, row) for place, row in enumerate(rows)]
    absent = [task for task in FOLDERS if task not in {question.part for question in questions}]
    if absent:
        notices.append(f"{len(absent)} of 20 tasks are not in the folder: {', '.join(absent)}")
    if not questions and find_files(folder, "*.json"):
        notices.append("no file is named for a task of MVBench")
    return Loaded(tuple(questions), tuple(notices))


def _question(task: str, place: int, row: Row) -> Question:
    (question, video, answer), fault = text(row, "question", "video", "answer")
    options, no_options = option_texts(row, "candidates")
    gold = LETTERS[options.index(answer)] if answer in options else ""
    listed = "".join(f"({letter}) {option}\n" for letter, option in zip(LETTERS, options, strict=False))
    return Question(
        item_id=f"{task}/{place}",
        row=place,
        task=f"mvbench_{task}",
        videos=tuple(f"{root}{FOLDERS[task]}/{video}" for root in _ROOTS),
        part=task,
        prompt=f"Question:{question}\nOption:\n{listed}Only give the best option.\n",
        stem=stem_of(question),
        options=tuple(options),
        gold=gold,
        max_new_tokens=16,
        fault=fault or no_options or ("" if gold else f"answer {answer[:60]!r} is none of the candidates"),
    )


def grade(question: Question, reply: str, harness: Harness) -> Grade:
    """An empty reply leaves the denominator, as in lmms-eval; the table says how many did."""
    given = normal_mvbench(reply)
    letter = normal_mvbench(question.gold)
    return Grade(given, given == letter, is_parsed=len(given) == 1, is_counted=reply != "")


MVBENCH = Benchmark("mvbench", "MVBench", load, grade, macro=True, size=(4000, 3641, 18.0))
