"""Files that are not as published: one line, or a listed row; never a silent one."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UsageError
from pipeline.public_benchmarks.benchmark import option_lines, stem_of, without_letter
from pipeline.public_benchmarks.extraction import before_bracket_2025, letter_2025, letter_2026
from pipeline.public_benchmarks.registry import BENCHMARKS
from tests.pipeline.public_benchmarks.fabricate import make


def edit(file: Path, change: Any) -> None:
    """Rewrite a Parquet file's rows through `change`."""
    rows = pq.read_table(file).to_pylist()
    pq.write_table(pa.Table.from_pylist(change(rows)), file)


@pytest.fixture
def videomme(tmp_path: Path) -> tuple[Path, Path]:
    folder = make("videomme", tmp_path, 12, with_videos=False)
    return folder, folder / "videomme" / "test-00000-of-00001.parquet"


def test_a_missing_column_is_refused_and_an_unknown_one_is_told(videomme: tuple[Path, Path]) -> None:
    folder, file = videomme
    edit(file, lambda rows: [row | {"extra": 1} for row in rows])
    loaded = BENCHMARKS["videomme"].load(folder, "default")
    assert len(loaded.questions) == 12
    assert loaded.notices == (f"{file.name}: unknown column extra: not in the published layout, ignored",)
    edit(file, lambda rows: [{("antwoord" if k == "answer" else k): v for k, v in row.items()} for row in rows])
    with pytest.raises(UsageError, match=r"column answer is missing; .*it has antwoord, extra"):
        BENCHMARKS["videomme"].load(folder, "default")


def test_rows_that_cannot_be_asked_have_a_fault_and_odd_ones_are_asked(videomme: tuple[Path, Path]) -> None:
    folder, file = videomme

    def spoil(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rows[0]["options"] = rows[0]["options"][:3]
        rows[1]["question"] = None
        rows[2]["options"] = None
        rows[3]["answer"] = ""
        rows[4]["question_id"] = rows[5]["question_id"]
        return rows

    edit(file, spoil)
    questions = BENCHMARKS["videomme"].load(folder, "default").questions
    assert questions[0].odd == "3 options; expected 4; asked as it stands"
    assert not questions[0].fault
    assert questions[0].prompt.count("\n") == 6
    assert [bool(q.fault) for q in questions[1:5]] == [True, True, True, False]
    assert len({q.item_id for q in questions}) == 12


def test_a_folder_without_the_files_is_one_line(tmp_path: Path) -> None:
    for name, benchmark in BENCHMARKS.items():
        with pytest.raises(UsageError, match=f"--data {tmp_path}: no file of"):
            benchmark.load(tmp_path, "default")
        with pytest.raises(UsageError, match="no such folder"):
            benchmark.load(tmp_path / name, "default")
    (tmp_path / "GENERATION").mkdir()
    (tmp_path / "GENERATION" / "test-0.parquet").write_bytes(b"")
    with pytest.raises(UsageError, match="answers are not public"):
        BENCHMARKS["egoschema"].load(tmp_path, "default")


def test_a_damaged_file_is_one_line(videomme: tuple[Path, Path]) -> None:
    folder, file = videomme
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UsageError, match="not a readable Parquet file"):
        BENCHMARKS["videomme"].load(folder, "default")


def test_mlvus_two_distributions_ask_the_same(tmp_path: Path) -> None:
    """The original's question and options, laid out by its own rule, are the re-pack's question."""
    folder = make("mlvu_original", tmp_path / "original", 70, with_videos=False)
    original = BENCHMARKS["mlvu"].load(folder, "default")
    assert original.notices == ("9_summary.json: 1 rows without options: generation tasks, left out",)
    rows = [
        {
            "video_name": Path(q.video).name,
            "duration": 1.0,
            "question": q.prompt.removesuffix("\nOnly give the best option.\nBest option: ("),
            "candidates": list(q.options),
            "answer": q.gold if place % 2 else q.options["ABCD".index(q.gold)],  # a letter, or the text
            "task_type": q.part,
            "question_id": str(place),
        }
        for place, q in enumerate(original.questions)
    ]
    (tmp_path / "repacked").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "repacked" / "test-00000-of-00001.parquet")
    repacked = BENCHMARKS["mlvu"].load(tmp_path / "repacked", "default").questions
    assert [(q.prompt, q.stem, q.gold, q.options) for q in repacked] == [
        (q.prompt, q.stem, q.gold, q.options) for q in original.questions
    ]


def test_an_answer_that_is_no_option_is_listed(tmp_path: Path) -> None:
    folder = make("mlvu_original", tmp_path, 14, with_videos=False)
    file = folder / "json" / "2_needle.json"
    rows = json.loads(file.read_text())
    rows[0]["answer"] = "something else"
    file.write_text(json.dumps(rows))
    odd = [q.odd for q in BENCHMARKS["mlvu"].load(folder, "default").questions if q.odd]
    assert odd == ["answer 'something else' is none of the options: no reply can be right"]


def test_longvideobench_json_is_the_parquet(tmp_path: Path) -> None:
    folder = make("longvideobench", tmp_path / "parquet", 40, with_videos=False)
    rows = pq.read_table(folder / "validation-00000-of-00001.parquet").to_pylist()
    for row in rows:
        options = [row.pop(f"option{i}") for i in range(5)]
        row["candidates"] = [option for option in options if option != "N/A"]
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "lvb_val.json").write_text(json.dumps(rows))
    load = BENCHMARKS["longvideobench"].load
    assert load(tmp_path / "json", "default") == load(folder, "default")


@pytest.mark.parametrize(
    ("reply", "until_071", "from_072", "mlvu"),
    [
        ("B", "B", "B", "B"),
        ("(B) blah", "B", "B", "B"),
        ("B. A red thing", "B", "B", "B. A red thing"),
        ("A video of B", "A", "A", "A video of B"),
        ("Both; answer: C", "B", "C", "Both; answer: C"),
        ("no letter here", "", "", "no letter here"),
        ("", "", "", ""),
    ],
)
def test_the_two_eras_of_extraction(reply: str, until_071: str, from_072: str, mlvu: str) -> None:
    assert letter_2025(reply, "ABCD") == until_071
    assert letter_2026(reply, "ABCD") == from_072
    assert before_bracket_2025(reply) == mlvu


def test_a_stem_is_the_question_without_its_options() -> None:
    asked = "Where is A. Smith?\nAnd why?\n(A) here\n(B) there\n"
    assert stem_of(asked) == "Where is A. Smith?\nAnd why?"
    assert option_lines(asked) == ("here", "there")
    assert stem_of("A. Smith is where?") == "A. Smith is where?"
    assert [without_letter(x) for x in ("B. a: dog", "(C) x", "Caption B: it goes", "plain")] == [
        "a: dog", "x", "it goes", "plain",
    ]  # fmt: skip
