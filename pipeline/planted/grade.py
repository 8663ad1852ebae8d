"""What an index says about a planted archive, held against the truth."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline.planted.archive import LEAD_S, Truth, VideoTruth
from pipeline.planted.captions import facts

Row = Mapping[str, object]
TOLERANCE_S = 2 * LEAD_S


@dataclass(frozen=True)
class Grade:
    """Facts right out of facts there are, by kind; and what is wrong, in words."""

    right: dict[str, int]
    total: dict[str, int]
    faults: tuple[str, ...]

    @property
    def share(self) -> float:
        return sum(self.right.values()) / sum(self.total.values())

    def lines(self) -> list[str]:
        rows = [f"{kind:10s} {self.right[kind]:4d} of {self.total[kind]:4d} right" for kind in self.total]
        n_right, n = sum(self.right.values()), sum(self.total.values())
        return [*rows, f"{n_right} of {n} planted facts right ({self.share:.1%})"]


def grade(truth: Truth, captions: Iterable[Row], answers: Iterable[Row], segments: Iterable[Row] = ()) -> Grade:
    """Compare rows of the tables `captions`, `answers` and `segments` with `truth`.

    Needed columns: captions uri, start_s, caption; answers uri, question, answer, scope; segments uri or video_name
    joined in as `uri`, start_s. Caption facts are the different things named ("red star"): one left out is a fact
    missed, one made up is a fact wrong, one repeated counts once. Without `segments`, cuts are not graded.
    """
    told, answered, cut_times = list(captions), list(answers), list(segments)
    types = {question.text: question.type for question in truth.questions}
    kinds = ["caption", *dict.fromkeys(types.values()), *(["cuts"] if cut_times else [])]
    right, total = dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0)
    faults: list[str] = []
    for video in truth.videos:
        _grade_caption(video, [row for row in told if _is(row, video)], right, total, faults)
        mine = {str(row["question"]): str(row["answer"]) for row in answered if _is(row, video)}
        for text, value in video.answers.items():
            given = mine.get(text, "").strip().rstrip(".").lower()
            total[types[text]] += 1
            right[types[text]] += given == value
            if given != value:
                faults.append(f"{video.name}: {text} is {value!r}, the index says {given or 'nothing'!r}")
        if cut_times:
            starts = [float(str(row["start_s"])) for row in cut_times if _is(row, video)]
            _grade_cuts(video, starts, right, total, faults)
    return Grade(right, total, tuple(faults))


def _is(row: Row, video: VideoTruth) -> bool:
    return str(row["uri"]).endswith("/" + video.name)


def _grade_caption(
    video: VideoTruth, rows: list[Row], right: dict[str, int], total: dict[str, int], faults: list[str]
) -> None:
    said = " ".join(str(row["caption"]) for row in sorted(rows, key=lambda row: float(str(row["start_s"]))))
    stated = set(facts(said))
    total["caption"] += len(stated | set(video.things))
    right["caption"] += len(stated & set(video.things))
    faults += [f"{video.name}: the caption misses {thing!r}; it says {said!r}" for thing in set(video.things) - stated]
    faults += [f"{video.name}: the caption says {thing!r}, which is not there" for thing in stated - set(video.things)]


def _grade_cuts(
    video: VideoTruth, starts_s: list[float], right: dict[str, int], total: dict[str, int], faults: list[str]
) -> None:
    """A true cut is right when a segment starts there; a start where nothing changes is a fault but no fact."""
    for cut in video.cuts_s:
        total["cuts"] += 1
        near = any(abs(start - cut) <= TOLERANCE_S for start in starts_s)
        right["cuts"] += near
        if not near:
            faults.append(f"{video.name}: no segment starts at the cut at {cut:g} s")
    for start in starts_s:
        if start > TOLERANCE_S and all(abs(start - change) > TOLERANCE_S for change in video.changes_s):
            faults.append(f"{video.name}: a segment starts at {start:g} s, where nothing changes")
