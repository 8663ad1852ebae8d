"""Faults of an index of planted videos, each named: the checks behind jobs.doctor.

A model may miss a thing; it does not describe another video, drift in time or drop a segment. So a single wrong word is
counted, and these are faults:

    a caption that fits another video better than its own      two rows were swapped
    cuts that are all there, but a constant time away           times are shifted
    a stretch of a video that no segment covers                 a segment was dropped
    a cut at which no segment starts                            segmentation misses it
    fewer facts right than `MIN_SHARE`                          the model or its input is broken
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from pipeline.planted.archive import Truth, VideoTruth
from pipeline.planted.captions import facts
from pipeline.planted.grade import TOLERANCE_S, grade

MIN_SHARE = 0.7
Row = Mapping[str, object]


def find_faults(truth: Truth, captions: Iterable[Row], answers: Iterable[Row], segments: Iterable[Row]) -> list[str]:
    """Faults in words, none when the index says what was planted.

    Needed columns: captions uri, start_s, caption; answers uri, question, answer, scope; segments uri, start_s, end_s.
    """
    told, spans = _by_video(truth, captions), _by_video(truth, segments)
    faults = [*_foreign_captions(truth, told), *_faults_in_time(truth, spans)]
    share = grade(truth, list(_flat(told)), answers).share
    if share < MIN_SHARE:
        faults.append(f"only {share:.0%} of what was planted is told right, expected at least {MIN_SHARE:.0%}")
    return faults


def _by_video(truth: Truth, rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {video.name: [] for video in truth.videos}
    for row in sorted(rows, key=lambda row: float(str(row["start_s"]))):
        name = str(row["uri"]).rsplit("/", 1)[-1]
        if name in found:
            found[name].append(row)
    return found


def _flat(rows: Mapping[str, list[Row]]) -> Iterable[Row]:
    return (row for own in rows.values() for row in own)


def _foreign_captions(truth: Truth, told: Mapping[str, list[Row]]) -> Iterable[str]:
    for video in truth.videos:
        said = facts(" ".join(str(row["caption"]) for row in told[video.name]))
        fits = {other.name: _overlap(said, Counter(other.things)) for other in truth.videos}
        best = max(fits, key=lambda name: fits[name])
        if not told[video.name]:
            yield f"{video.name}: it has no caption"
        elif fits[best] > fits[video.name] and fits[video.name] < 0.5:
            yield f"{video.name}: its caption describes {best}"


def _overlap(said: Counter[str], things: Counter[str]) -> float:
    """Intersection over union of two bags of things."""
    return sum((said & things).values()) / max(1, sum((said | things).values()))


def _faults_in_time(truth: Truth, spans: Mapping[str, list[Row]]) -> Iterable[str]:
    offsets = []
    for video in truth.videos:
        starts = [float(str(row["start_s"])) for row in spans[video.name]]
        offsets += [min(((s - cut) for s in starts), key=abs) for cut in video.cuts_s if starts]
    shift = median(offsets) if offsets else 0.0
    if abs(shift) > TOLERANCE_S:
        yield f"times are shifted by {shift:+.2f} s"
        return
    for video in truth.videos:
        yield from _faults_in_video(video, spans[video.name])


def _faults_in_video(video: VideoTruth, rows: Sequence[Row]) -> Iterable[str]:
    reached = 0.0
    for row in rows:
        start_s, end_s = float(str(row["start_s"])), float(str(row["end_s"]))
        if start_s > reached + TOLERANCE_S:
            yield f"{video.name}: no segment covers {reached:g} to {start_s:g} s"
        reached = max(reached, end_s)
    if reached < video.seconds - 2 * TOLERANCE_S:
        yield f"{video.name}: no segment covers {reached:g} to {video.seconds:g} s"
    for cut in video.cuts_s:
        if all(abs(float(str(row["start_s"])) - cut) > TOLERANCE_S for row in rows):
            yield f"{video.name}: no segment starts at the cut at {cut:g} s"
