"""The doctor's eye: an index that says what was planted has no fault; each planted fault is named."""

import itertools
from collections.abc import Callable

import pytest

from pipeline.planted.archive import Truth, render_archive
from pipeline.planted.selftest import find_faults

Rows = list[dict[str, object]]
Tables = tuple[Rows, Rows, Rows]


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return render_archive(tmp_path_factory.mktemp("planted"), seed=5, n_videos=3, seconds=16)


def true_tables(truth: Truth) -> Tables:
    captions: Rows = []
    answers: Rows = []
    segments: Rows = []
    for video in truth.videos:
        uri = f"file:///somewhere/{video.name}"
        captions.append({"uri": uri, "start_s": 0.0, "caption": video.caption})
        answers += [{"uri": uri, "question": q, "answer": a, "scope": "video"} for q, a in video.answers.items()]
        edges = [0.0, *video.cuts_s, float(video.seconds)]
        segments += [{"uri": uri, "start_s": s, "end_s": e} for s, e in itertools.pairwise(edges)]
    return captions, answers, segments


def swap_captions(tables: Tables) -> None:
    a, b = tables[0][0], tables[0][1]
    a["caption"], b["caption"] = b["caption"], a["caption"]


def shift_times(tables: Tables) -> None:
    for row in tables[2]:
        row["start_s"], row["end_s"] = float(str(row["start_s"])) + 1, float(str(row["end_s"])) + 1


def drop_segment(tables: Tables) -> None:
    del tables[2][1]


def merge_segments(tables: Tables) -> None:
    tables[2][0]["end_s"] = tables[2][1]["end_s"]
    del tables[2][1]


def lose_answers(tables: Tables) -> None:
    tables[1].clear()
    for row in tables[0]:
        row["caption"] = str(row["caption"]).split(",")[0]


def test_the_truth_has_no_fault(truth: Truth) -> None:
    assert find_faults(truth, *true_tables(truth)) == []


@pytest.mark.parametrize(
    ("plant", "named"),
    [
        (swap_captions, "its caption describes"),
        (shift_times, "times are shifted by +1.00 s"),
        (drop_segment, "no segment covers"),
        (merge_segments, "no segment starts at the cut"),
        (lose_answers, "of what was planted is told right"),
    ],
)
def test_a_planted_fault_is_named(plant: Callable[[Tables], None], named: str, truth: Truth) -> None:
    tables = true_tables(truth)
    plant(tables)
    faults = find_faults(truth, *tables)
    assert any(named in fault for fault in faults), faults
    assert len(faults) <= 3, "one fault is not reported as many"
