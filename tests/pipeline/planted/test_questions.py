"""Every answer is checked against what the frames show, found again the slow way, without scenes or things."""

import itertools

import numpy as np
import pytest

from pipeline.planted.questions import TEMPLATES, TWELVE, Question, QuestionType, ask, room_name
from pipeline.planted.scene import Clip, Look, sample_clip
from pipeline.planted.vocabulary import COLOURS, COUNTS, DIGITS, DIRECTIONS, GRID, QUARTERS, SHAPES

Film = list[tuple[str, tuple[Look, ...]]]  # room and looks, frame by frame


def film(clip: Clip) -> Film:
    scenes = [clip.scene_at(frame) for frame in range(clip.n_frames)]
    return [(room_name(scene.room), scene.looks(frame)) for frame, scene in enumerate(scenes)]


def words(question: Question) -> list[str]:
    return question.text.lower().replace("?", " ").replace(",", " ").replace(":", " ").split()


def named(question: Question, names: object) -> list[str]:
    return [word for word in words(question) if word in names]  # type: ignore[operator]  # names of types and words


def first_seen(frames: Film, kind: str) -> int:
    return next(i for i, (_, looks) in enumerate(frames) if any(look.kind == kind for look in looks))


def slow_answer(question: Question, frames: Film) -> str:
    everything = [look for _, looks in frames for look in looks]
    kinds, type_ = named(question, SHAPES), question.type
    if type_ == "presence":
        (found,) = {look.kind for look in everything} & set(kinds)
        return found
    if type_ == "colour":
        (found,) = {look.colour for look in everything if look.kind == kinds[0]}
        return found
    if type_ == "shape":
        (found,) = {look.kind for look in everything if look.colour == named(question, COLOURS)[0]}
        return found
    if type_ == "count":
        rooms = {room for room, looks in frames if any(look.kind == kinds[0] for look in looks)}
        return COUNTS[len(rooms) - 1]
    if type_ == "order":
        return ", ".join(sorted(kinds, key=lambda kind: first_seen(frames, kind)))
    if type_ == "quarter":
        return QUARTERS[4 * first_seen(frames, kinds[0]) // len(frames)]
    if type_ == "direction":
        return slow_direction(frames)
    if type_ in ("change", "flash"):
        return slow_digit(type_, frames)
    if type_ == "small":
        (found,) = {look.kind for look in everything if look.size == "small" and look.kind in SHAPES}
        return found
    room = next(room for room, _ in frames if room in question.text)
    if type_ == "room":
        (found,) = {look.colour for r, looks in frames if r == room for look in looks if look.kind == kinds[0]}
        return found
    last = max(i for i, (r, _) in enumerate(frames) if r == room)
    after = frames[last + 1][0]
    (found,) = {look.kind for r, looks in frames if r == after for look in looks}
    return found


def slow_direction(frames: Film) -> str:
    """The one (kind, colour) whose cell differs between neighbouring frames of one room."""
    for (room, before), (next_room, after) in itertools.pairwise(frames):
        if room != next_room:
            continue
        for a in before:
            for b in after:
                if (a.kind, a.colour, a.offset_px) == (b.kind, b.colour, b.offset_px) and a.cell != b.cell:
                    delta = (b.cell[0] - a.cell[0], b.cell[1] - a.cell[1])
                    return next(name for name, step in DIRECTIONS.items() if step == delta)
    raise AssertionError("nothing moves")


def slow_digit(type_: QuestionType, frames: Film) -> str:
    shown: dict[tuple[str, tuple[int, int]], list[str]] = {}
    for room, looks in frames:
        for look in looks:
            if look.kind in DIGITS:
                shown.setdefault((room, look.cell), []).append(look.kind)
    if type_ == "change":
        (kinds,) = [kinds for kinds in shown.values() if len(set(kinds)) == 2]
        return kinds[-1]
    return min(shown.values(), key=len)[0]


@pytest.mark.parametrize("type_", TWELVE)
@pytest.mark.parametrize("n_frames", [8, 32])
def test_answers_are_what_the_frames_show(type_: QuestionType, n_frames: int) -> None:
    asked = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        clip = sample_clip(rng, n_frames, type_)  # type: ignore[arg-type]  # names of types and words
        question = ask(clip, type_, rng)
        if question is None:
            continue
        asked += 1
        assert question.answer == slow_answer(question, film(clip)), question
        assert len(set(question.choices)) == 4
    assert asked >= 10


@pytest.mark.parametrize("type_", TWELVE)
def test_evidence_lies_where_something_is_shown(type_: QuestionType) -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        clip = sample_clip(rng, 32, type_)  # type: ignore[arg-type]  # names of types and words
        question = ask(clip, type_, rng)
        if question is None:
            continue
        frames = film(clip)
        assert question.evidence
        for group in question.evidence:
            assert group
            for frame, cell in group:
                covered = {r * GRID + c for look in frames[frame][1] for r, c in look.cells()}
                assert cell in covered


def test_yes_and_no_are_both_asked_and_true() -> None:
    given = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        clip = sample_clip(rng, 16, "colour")
        question = ask(clip, "exists", rng)
        assert question is not None
        (colour,), (kind,) = named(question, COLOURS), named(question, SHAPES)
        there = any((look.colour, look.kind) == (colour, kind) for _, looks in film(clip) for look in looks)
        assert question.answer == ("yes" if there else "no")
        given.append(question.answer)
    assert 15 <= given.count("yes") <= 45


def test_the_held_out_wording_is_never_drawn() -> None:
    for seed in range(80):
        rng = np.random.default_rng(seed)
        question = ask(sample_clip(rng, 32, "direction"), "direction", rng)
        assert question is not None
        assert question.text != TEMPLATES["direction"][3]


def test_an_answer_outside_its_choices_is_refused() -> None:
    with pytest.raises(ValueError, match="not exactly one of"):
        Question("colour", "What colour is the star?", "red", ("blue", "green"), (), 0, ())
