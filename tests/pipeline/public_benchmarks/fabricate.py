"""Published benchmarks made up: every file, column and folder as their cards document them, rows and videos invented.

    python -m tests.pipeline.public_benchmarks.fabricate --benchmark videomme --output DIR [--rows 240] [--seed 7]

Nothing of the real sets is in here. Rows are nasty on purpose: questions and options hold letters in brackets, commas,
other scripts, quotes and numbers, and `replies` lists what a model may say to them.
"""

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.public_benchmarks.benchmark import LETTERS, Question
from pipeline.public_benchmarks.mvbench import FOLDERS

NOUNS = (
    "red star", "blue ring", "man in a BBC studio", "A/C unit", "dog (Border Collie)", "E-bike", "the Cat",
    "1,000 euros", "Plan B", "vitamin C", "grade D meat", "two men", "a bee", "'quoted' sign", "U.S. flag",
    "3.5 metres", "海边的房子", "émigré", "none of the above", "both A and B", "Group A", "C", "yes", "no",
    "the answer is no", "ﬁsh", "İstanbul",
)  # fmt: skip
QUESTIONS = (
    "What is in the {a}?", "Which of these appears after the {a} (A) or before it (B)?", "How many {a}s are there?",
    "Who says: \"I choose C.\"?", "在视频中，{a}在哪里？", "Why does the {a} leave?\nThink about the {b}.",
    "When the {a} is shown, what does E. coli stand for?", "Is the {a} faster than the {b}", "What colour is option D?",
)  # fmt: skip
SAID = (
    "", " ", ".", "A", "B", "C", "D", "E", "F", "a", "b", "(A)", "(B)", "(c)", "A.", "B)", "C:", "D,", "'B'", '"C"',
    "(B", "B) A)", "(A) or (D)", "A and B", "A, B", "Both; answer: C", "The answer is B", "The answer is (D).",
    "The best answer is C.", "the correct option is b", "My answer is D because A is wrong.", "Answer: C",
    "I choose the second one, A.", "A red car", "a red car", "A video of B", "A. A man", "D. A book", "E. none",
    "C) The AD logo", "The man is at a BBC. studio", "The Cat", "Be careful", "Dogs bark at Cats", "I cannot answer.",
    "I'm sorry, but I can't help with that.", "As an AI I do not see any video here so there is no letter to give",
    "There is no way to tell from this video which of the options is meant by the question",
    "**B**", "`C`", "<D>", "[A]", "{B}", "B\n", "\nC", "B\nBecause it is blue.", "A.B.C.D.", "ABCD", "AB", "答案是C",
    "정답은 B", "答えは D です", "选B", "Yes", "yes.", "No, it is not", "not sure", "Yes and no", "1", "2.", "1,000",
    "A/B", "A-B", "B_C", "x" * 300, "Option B", "Caption A", "Sentence C.", "option b", "B!!!", "...C", "c. blue",
    "\tD\t", "Ａ", "А", "the first", "neither A nor B nor C nor D", "A? B? C!", "E, not A", "D. D. D.", "The answer",
    "Best option: (B)", "Best answer: C", "The best option is (A", "). B", ")B(", "B'", "e", "(e)", "f) foo",
)  # fmt: skip


def replies(rng: random.Random, question: Question, n: int) -> list[str]:
    """What a model might say to it: made-up lines, and the options themselves said in many ways."""
    lines = [rng.choice(SAID) for _ in range(n)]
    for place in range(0, n, 2):
        letter, text = rng.choice(list(zip(question.letters, question.options, strict=True)) or [("A", "nothing")])
        form = rng.choice(
            (
                "{x}",
                "({x})",
                "{x}.",
                "{x}. {t}",
                "({x}) {t}",
                "{t}",
                "It is {t}.",
                "{x}) {t}",
                "The answer is {x}",
                "I think that it must be {t} in this video",
                "{t} ({x})",
                "Caption {x}",
                "Caption {x}: {t}",
                "{x}: {t}",
                "Answer: {x}. {t}",
                "{l}",
                "{l}. {t}",
                "Option {x}: {t}",
                "Sentence {x}",
            )
        )
        lines[place] = form.format(x=letter, t=text, l=letter.lower())
    return [line.strip() for line in lines]  # lmms-eval strips what a model returns


def make(benchmark: str, folder: Path, n_rows: int = 240, seed: int = 7, with_videos: bool = True) -> Path:
    """Write `n_rows` rows (of each file) and their videos below `folder`, in the published layout."""
    rng, folder = random.Random(f"{benchmark}|{seed}"), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = MAKERS[benchmark](folder, rng, n_rows)
    if with_videos:
        made = [_video(folder / f"clip{i}.mp4", seed + i, n_frames=6 + 5 * i) for i in range(6)]
        for place, name in enumerate(dict.fromkeys(names)):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(made[place % len(made)])
        for i in range(6):
            (folder / f"clip{i}.mp4").unlink()
    return folder


def _video(path: Path, seed: int, n_frames: int) -> bytes:
    """A few seconds of moving squares."""
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=4)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.options = {"preset": "ultrafast", "threads": "1"}
        colour = rng.integers(0, 255, (3, 3))
        for i in range(n_frames):
            frame = np.zeros((64, 96, 3), np.uint8)
            frame[:] = colour[i * 3 // n_frames]
            frame[8:24, (i * 4) % 70 : (i * 4) % 70 + 16] = 255 - colour[0]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def _question(rng: random.Random) -> str:
    return rng.choice(QUESTIONS).format(a=rng.choice(NOUNS), b=rng.choice(NOUNS))


def _options(rng: random.Random, n: int) -> list[str]:
    return rng.sample(NOUNS, n)


def _parquet(path: Path, rows: list[dict[str, object]], schema: pa.Schema | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def videomme(folder: Path, rng: random.Random, n_rows: int) -> list[str]:
    domains = (
        "Knowledge",
        "Film & Television",
        "Sports Competition",
        "Artistic Performance",
        "Life Record",
        "Multilingual",
    )
    subs = ("Humanity & History", "Movie & TV Show", "Basketball", "Stage Play", "Handicraft", "Multilingual")
    tasks = ("Temporal Perception", "OCR Problems", "Counting Problem", "Object Reasoning", "Information Synopsis")
    rows: list[dict[str, object]] = []
    for i in range(n_rows):
        video = i // 3
        name = f"v_-{video:03d}{'aZ_-'[video % 4]}"
        rows.append(
            {
                "video_id": f"{video + 1:03d}",
                "duration": ("short", "medium", "long")[video % 3],
                "domain": domains[video % 6],
                "sub_category": subs[video % 6],
                "url": f"https://www.youtube.com/watch?v={name}",
                "videoID": name,
                "question_id": f"{video + 1:03d}-{i % 3 + 1}",
                "task_type": rng.choice(tasks),
                "question": _question(rng),
                "options": [f"{x}. {text}" for x, text in zip("ABCD", _options(rng, 4), strict=True)],
                "answer": rng.choice("ABCD"),
            }
        )
    _parquet(folder / "videomme" / "test-00000-of-00001.parquet", rows)
    return [f"data/{row['videoID']}.mp4" for row in rows]


MLVU_TASKS = ("plotQA", "needle", "ego", "count", "order", "anomaly_reco", "topic_reasoning")


def mlvu(folder: Path, rng: random.Random, n_rows: int) -> list[str]:
    rows: list[dict[str, object]] = []
    for i in range(n_rows):
        options = _options(rng, 4)
        listed = "\n".join(f"({x}) {text}" for x, text in zip("ABCD", options, strict=True))
        rows.append(
            {
                "video_name": f"movie101_{i // 2}.mp4",
                "duration": float(rng.randint(180, 7200)),
                "question": f"{_question(rng)}\n{listed}",
                "candidates": options,
                "answer": rng.choice("ABCD"),
                "task_type": MLVU_TASKS[i % 7],
                "question_id": f"Q{i}",
            }
        )
    _parquet(folder / "mlvu" / "test-00000-of-00001.parquet", rows)
    return [str(row["video_name"]) for row in rows]


def mlvu_original(folder: Path, rng: random.Random, n_rows: int) -> list[str]:
    """The data set's own distribution: json/*.json and video/*/."""
    files = ("1_plotQA", "2_needle", "3_ego", "4_count", "5_order", "6_anomaly_reco", "7_topic_reasoning")
    names = []
    for place, name in enumerate(files):
        rows = []
        for i in range(max(1, n_rows // 7)):
            options = _options(rng, 4)
            rows.append(
                {
                    "video": f"{name}_{i // 2}.mp4",
                    "duration": 300.5,
                    "question": _question(rng),
                    "candidates": options,
                    "answer": rng.choice(options),
                    "question_type": "findNeedle" if name == "2_needle" else MLVU_TASKS[place],
                }
            )
        (folder / "json").mkdir(exist_ok=True)
        (folder / "json" / f"{name}.json").write_text(json.dumps(rows, ensure_ascii=False))
        names += [f"video/{name}/{row['video']}" for row in rows]
    summary = [
        {"video": "s.mp4", "duration": 9.0, "question": "Sum up.", "answer": "It ends.", "question_type": "summary"}
    ]
    (folder / "json" / "9_summary.json").write_text(json.dumps([row | {"candidates": None} for row in summary]))
    return names


def longvideobench(folder: Path, rng: random.Random, n_rows: int) -> list[str]:
    categories = (
        "S2E",
        "S2O",
        "S2A",
        "E2O",
        "O2E",
        "T2E",
        "T2O",
        "T2A",
        "E3E",
        "O3O",
        "T3E",
        "T3O",
        "SOS",
        "SAA",
        "SSS",
    )
    rows: list[dict[str, object]] = []
    for i in range(n_rows):
        n = rng.choice((4, 5))
        options = _options(rng, n)
        rows.append(
            {
                "video_id": f"yt{i // 2:05d}",
                "id": f"yt{i // 2:05d}_{i % 2}",
                "video_path": f"yt{i // 2:05d}.mp4",
                "subtitle_path": f"yt{i // 2:05d}_en.json",
                "correct_choice": rng.randrange(n),
                "question": _question(rng),
                **{f"option{k}": options[k] if k < n else "N/A" for k in range(5)},
                "duration": rng.random() * 3600,
                "duration_group": rng.choice((15, 60, 600, 3600)),
                "question_category": rng.choice(categories),
                "topic_category": "KS-Knowledge-STEM",
                "starting_timestamp_for_subtitles": 0.0,
            }
        )
    _parquet(folder / "validation-00000-of-00001.parquet", rows)
    return [f"videos/{row['video_path']}" for row in rows]


def mvbench(folder: Path, rng: random.Random, n_rows: int) -> list[str]:
    names, per_task = [], max(1, n_rows // len(FOLDERS))
    (folder / "json").mkdir(exist_ok=True)
    for task, place in FOLDERS.items():
        rows = []
        for i in range(per_task):
            options = _options(rng, rng.choice((3, 4, 5)))
            video = f"{task}_{i}.mp4"
            row: dict[str, object] = {"video": video, "question": _question(rng), "candidates": options}
            rows.append(row | {"answer": rng.choice(options)} | ({"start": 1.0, "end": 2.0} if "star" in place else {}))
            names.append(f"{place}/{video}")
        (folder / "json" / f"{task}.json").write_text(json.dumps(rows, ensure_ascii=False))
    return names


def egoschema(folder: Path, rng: random.Random, n_rows: int) -> list[str]:
    rows: list[dict[str, object]] = [
        {
            "question_idx": str(i),
            "question": _question(rng),
            "video_idx": f"{i:08x}-0000-4000-8000-{i:012x}",
            "option": [f"{x}. {text}" for x, text in zip("ABCDE", _options(rng, 5), strict=True)],
            "answer": str(rng.randrange(5)),
        }
        for i in range(n_rows)
    ]
    _parquet(folder / "Subset" / "test-00000-of-00001.parquet", rows)
    return [f"videos/{row['video_idx']}.mp4" for row in rows]


def nextqa(folder: Path, rng: random.Random, n_rows: int) -> list[str]:
    rows: list[dict[str, object]] = []
    for i in range(n_rows):
        options = _options(rng, 5)
        rows.append(
            {
                "video": str(4_000_000_000 + i // 4),
                "frame_count": 900,
                "width": 640,
                "height": 480,
                "question": _question(rng) + " ",
                "answer": rng.randrange(5),
                "qid": str(i % 4),
                "type": rng.choice(("CW", "CH", "TN", "TC", "TP", "DC", "DL", "DO")),
                **{f"a{k}": options[k] for k in range(5)},
            }
        )
    _parquet(folder / "MC" / "test-00000-of-00001.parquet", rows)
    return [f"NExTVideo/{row['video']}.mp4" for row in rows]


def tempcompass(folder: Path, rng: random.Random, n_rows: int) -> list[str]:
    dims = ("action", "direction", "speed", "order", "attribute_change")
    names = []
    for task in ("multi-choice", "yes_no", "caption_matching"):
        rows: list[dict[str, object]] = []
        for i in range(n_rows):
            options = [text.replace(": ", " ") for text in _options(rng, rng.choice((2, 3, 4)))]
            letters = LETTERS[: len(options)]
            question = rng.choice(QUESTIONS).format(a=rng.choice(NOUNS), b=rng.choice(NOUNS)).replace("\n", " ")
            if task == "multi-choice":
                lines = [f"{x}. {text}" for x, text in zip(letters, options, strict=True)]
                answer = rng.choice(lines)
            elif task == "caption_matching":
                kind = rng.choice(("Sentence", "Caption", "Option"))
                lines = [f"{kind} {x}: {text}" for x, text in zip(letters, options, strict=True)]
                answer = rng.choice(lines)
            else:
                lines, answer = [], rng.choice(("yes", "no"))
            rows.append(
                {
                    "video_id": f"{1_000_000 + i // 5}",
                    "question": "\n".join([question, *lines]),
                    "answer": answer,
                    "dim": rng.choice(dims),
                }
            )
        _parquet(folder / task / "test-00000-of-00001.parquet", rows)
        names += [f"videos/{row['video_id']}.mp4" for row in rows]
    return names


Maker = Callable[[Path, random.Random, int], list[str]]
MAKERS: dict[str, Maker] = {
    "videomme": videomme,
    "mlvu": mlvu,
    "mlvu_original": mlvu_original,
    "longvideobench": longvideobench,
    "mvbench": mvbench,
    "egoschema": egoschema,
    "nextqa": nextqa,
    "tempcompass": tempcompass,
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--benchmark", required=True, choices=list(MAKERS))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=240)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    print(make(args.benchmark, args.output, args.rows, args.seed))
