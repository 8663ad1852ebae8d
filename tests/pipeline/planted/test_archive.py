"""Files hold what the truth says, and grading sees every planted fault."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.planted.archive import TRUTH_FILE, Truth, read_truth, render_archive
from pipeline.planted.grade import grade


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    folder = tmp_path_factory.mktemp("archive")
    return folder, render_archive(folder, seed=3, n_videos=3, seconds=12)


def rows(truth: Truth) -> tuple[list[dict[str, object]], list[dict[str, object]], list[dict[str, object]]]:
    """Tables of an index that is right about everything."""
    uri = {v.name: f"file:///archive/{v.name}" for v in truth.videos}
    captions = [{"uri": uri[v.name], "start_s": 0.0, "caption": v.caption} for v in truth.videos]
    answers = [
        {"uri": uri[v.name], "question": text, "answer": value}
        for v in truth.videos
        for text, value in v.answers.items()
    ]
    segments = [{"uri": uri[v.name], "start_s": start} for v in truth.videos for start in (0.0, *v.cuts_s)]
    return captions, answers, segments


def test_a_sample_each_second_sees_each_scene_change(archive: tuple[Path, Truth]) -> None:
    folder, truth = archive
    for video in truth.videos:
        with av.open(str(folder / video.name)) as container:
            pictures = [(float(f.time), f.to_ndarray(format="rgb24").astype(float)) for f in container.decode(video=0)]
        assert pictures[-1][0] < video.seconds
        sampled = [[p for t, p in pictures if t <= second][-1] for second in range(video.seconds)]
        changes = [k for k in range(1, video.seconds) if np.abs(sampled[k] - sampled[k - 1]).mean() > 12]
        assert changes == list(video.cuts_s)


def test_truth_survives_the_disk_and_the_seed_decides_all(archive: tuple[Path, Truth], tmp_path: Path) -> None:
    folder, truth = archive
    assert read_truth(folder / "truth.json") == truth
    again = render_archive(tmp_path, seed=3, n_videos=1, seconds=12)
    assert again.videos[0] == truth.videos[0]
    assert (tmp_path / truth.videos[0].name).read_bytes() == (folder / truth.videos[0].name).read_bytes()
    assert render_archive(tmp_path / "other", seed=4, n_videos=1, seconds=12).videos[0].things != truth.videos[0].things


def test_a_right_index_is_all_right(archive: tuple[Path, Truth]) -> None:
    _, truth = archive
    result = grade(truth, *rows(truth))
    assert result.share == 1.0
    assert result.faults == ()
    assert sum(result.total.values()) == truth.n_facts + sum(len(v.cuts_s) for v in truth.videos)


def test_swapped_captions_are_seen(archive: tuple[Path, Truth]) -> None:
    _, truth = archive
    captions, answers, segments = rows(truth)
    captions[0]["caption"], captions[1]["caption"] = captions[1]["caption"], captions[0]["caption"]
    result = grade(truth, captions, answers, segments)
    assert result.share < 1.0
    assert any(truth.videos[0].name in fault and "caption" in fault for fault in result.faults)
    assert any(truth.videos[1].name in fault and "caption" in fault for fault in result.faults)


def test_a_made_up_thing_is_a_wrong_fact_and_a_repeated_one_is_not(archive: tuple[Path, Truth]) -> None:
    _, truth = archive
    captions, answers, segments = rows(truth)
    right = grade(truth, captions, answers, segments)
    repeated = [{**row, "caption": f"{row['caption']} {row['caption']}"} for row in captions]
    assert grade(truth, repeated, answers, segments).share == 1.0
    absent = next(c for c in ("red", "blue", "cyan") if f"{c} bar" not in truth.videos[0].things)
    captions[0]["caption"] = f"{truth.videos[0].caption.rstrip('.')}, then a {absent} bar."
    made_up = grade(truth, captions, answers, segments)
    assert sum(made_up.total.values()) == sum(right.total.values()) + 1
    assert any("which is not there" in fault for fault in made_up.faults)


def test_times_off_by_a_second_are_seen(archive: tuple[Path, Truth]) -> None:
    _, truth = archive
    captions, answers, segments = rows(truth)
    shifted = [{**row, "start_s": float(str(row["start_s"])) + 1.0} for row in segments]
    result = grade(truth, captions, answers, shifted)
    assert any("no segment starts at the cut" in fault for fault in result.faults)


def test_a_dropped_segment_and_an_invented_one_are_seen(archive: tuple[Path, Truth]) -> None:
    _, truth = archive
    captions, answers, segments = rows(truth)
    assert any("no segment starts" in fault for fault in grade(truth, captions, answers, segments[:-1]).faults)
    video = truth.videos[0]
    still = next(s for s in range(1, video.seconds) if s not in video.changes_s)
    extra = [*segments, {"uri": segments[0]["uri"], "start_s": still}]
    assert any("where nothing changes" in fault for fault in grade(truth, captions, answers, extra).faults)


def test_a_wrong_and_a_missing_answer_count_as_wrong(archive: tuple[Path, Truth]) -> None:
    _, truth = archive
    captions, answers, _ = rows(truth)
    answers[0]["answer"] = "nonsense"
    result = grade(replace(truth), captions, answers[:-1])
    assert sum(result.total.values()) - sum(result.right.values()) == 2
    assert any("nonsense" in fault for fault in result.faults)


def test_a_length_no_clip_holds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="8 to 32"):
        render_archive(tmp_path, seed=1, seconds=40)


def test_the_truth_of_another_version_is_refused(archive: tuple[Path, Truth], tmp_path: Path) -> None:
    _, truth = archive
    path = tmp_path / TRUTH_FILE
    truth.save(path)
    assert read_truth(path) == truth
    path.write_text(path.read_text().replace('"changes_s"', '"changed_s"'))
    with pytest.raises(UsageError, match="another version"):
        read_truth(path)
