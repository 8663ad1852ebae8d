"""Twelve types of question about a clip, each with its answer, four choices and the tokens that prove it.

`ask` returns None when the clip does not allow the type. Evidence is a tuple of groups of (frame, cell) places: an
answer is supported when every group has at least one of its places left (all of the groups, any of a group).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from pipeline.planted.scene import Clip, Look, Room, Scene, Thing
from pipeline.planted.vocabulary import COLOURS, COUNTS, DIGITS, DIRECTIONS, GRID, QUARTERS, SHAPES

QuestionType = Literal[
    "presence", "colour", "shape", "count", "order", "quarter", "direction", "change", "flash", "small", "room",
    "after", "exists",
]  # fmt: skip
TWELVE: tuple[QuestionType, ...] = get_args(QuestionType)[:12]
"""The benchmark's types. `exists` (yes or no) is trained and used in archives, not in the benchmark."""

Place = tuple[int, int]  # frame, cell index = row * GRID + column
Group = frozenset[Place]

# The last wording of each type is never trained on: the text-out-of-distribution stratum.
TEMPLATES: dict[QuestionType, tuple[str, ...]] = {
    "presence": (
        "Which of these appears: {0}, {1}, {2} or {3}?",
        "Which shape is in the video: {0}, {1}, {2} or {3}?",
        "What can be seen: a {0}, a {1}, a {2} or a {3}?",
        "Which of these is there: {0}, {1}, {2} or {3}?",
    ),
    "colour": (
        "What colour is the {kind}?",
        "What color is the {kind}?",
        "Which colour does the {kind} have?",
        "Which color is the {kind}?",
    ),
    "shape": (
        "What shape is the {colour} object?",
        "Which shape is {colour}?",
        "What is the shape of the {colour} thing?",
        "Which shape is the {colour} object?",
    ),
    "count": (
        "How many scenes contain a {kind}?",
        "In how many scenes is there a {kind}?",
        "How many scenes show the {kind}?",
        "How many scenes contain the {kind}?",
    ),
    "order": (
        "In which order do the {0}, the {1} and the {2} appear?",
        "What is the order of {0}, {1} and {2}?",
        "In what order are the {0}, the {1} and the {2} seen?",
        "In which order are {0}, {1} and {2} seen?",
    ),
    "quarter": (
        "In which quarter of the video does the {kind} appear?",
        "In which quarter is the {kind} first seen?",
        "Which quarter of the clip first shows the {kind}?",
        "In which quarter does the {kind} appear?",
    ),
    "direction": (
        "In which direction does the object move?",
        "Which way does the thing move?",
        "Where does the object move?",
        "In what direction does the thing move?",
    ),
    "change": (
        "What does the digit change to?",
        "Which digit does the digit become?",
        "What does the digit turn into?",
        "Which digit does it change to?",
    ),
    "flash": (
        "Which digit flashes?",
        "Which digit is seen only briefly?",
        "What digit flashes in the video?",
        "What is the digit that flashes?",
    ),
    "small": (
        "What is the small object?",
        "Which shape is small?",
        "What shape is the small thing?",
        "What is the shape of the small object?",
    ),
    "room": (
        "In the {room} room, what colour is the {kind}?",
        "What color is the {kind} in the {room} room?",
        "Which colour does the {kind} have in the {room} room?",
        "In the {room} room, which color is the {kind}?",
    ),
    "after": (
        "Right after the {room} room, which shape appears?",
        "Which shape is seen right after the {room} room?",
        "What appears right after the {room} room?",
        "What shape is right after the {room} room?",
    ),
    "exists": (
        "Is there {a} {colour} {kind}?",
        "Does {a} {colour} {kind} appear?",
        "Can {a} {colour} {kind} be seen in the video?",
        "Is {a} {colour} {kind} there?",
    ),
}


@dataclass(frozen=True)
class Question:
    type: QuestionType
    text: str
    answer: str
    choices: tuple[str, ...]
    evidence: tuple[Group, ...]
    scene: int
    """The scene the evidence starts in, for strata by position."""
    relevant_scenes: tuple[int, ...]
    """Scenes that show what the words of the question name (not always where the answer is)."""

    def __post_init__(self) -> None:
        if self.choices.count(self.answer) != 1:
            raise ValueError(f"{self.type}: the answer {self.answer!r} is not exactly one of {self.choices}")


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def room_name(room: Room) -> str:
    """As questions name a room: texture, then tone."""
    return f"{room.texture} {room.tone}"


@dataclass(frozen=True)
class _Sight:
    """A thing of a clip and where it is."""

    scene_index: int
    scene: Scene
    thing: Thing

    @property
    def kind(self) -> str:
        return self.thing.look.kind

    @property
    def colour(self) -> str:
        return self.thing.look.colour

    @property
    def first_frame(self) -> int:
        return self.scene.frames_of(self.thing).start

    def places(self, wanted: Callable[[Look, int], bool] = lambda look, frame: True) -> Group:
        """Every (frame, cell) that shows it where `wanted` holds."""
        return frozenset(
            (frame, row * GRID + col)
            for frame in range(self.scene.start, self.scene.end)
            if (look := self.thing.at(frame)) is not None and wanted(look, frame)
            for row, col in look.cells()
        )


def _sights(clip: Clip) -> list[_Sight]:
    return [_Sight(i, scene, thing) for i, scene in enumerate(clip.scenes) for thing in scene.things]


def _one_each(sights: list[_Sight], name: Callable[[_Sight], str]) -> list[_Sight]:
    """Sights whose `name` no other sight shares."""
    names = [name(s) for s in sights]
    return [s for s in sights if names.count(name(s)) == 1]


class _Asker:
    """One clip, one source of chance; a method per type."""

    def __init__(self, clip: Clip, rng: np.random.Generator, wording: int | None) -> None:
        self.clip, self.rng, self.wording = clip, rng, wording
        self.sights = _sights(clip)
        self.shaped = [s for s in self.sights if s.kind in SHAPES]

    def pick(self, options: list[_Sight]) -> _Sight:
        return options[int(self.rng.integers(len(options)))]

    def text(self, type_: QuestionType, *names: str, **fields: str) -> str:
        templates = TEMPLATES[type_]
        which = int(self.rng.integers(len(templates) - 1)) if self.wording is None else self.wording
        return templates[which].format(*names, **fields)

    def choices(self, answer: str, likely: list[str], others: tuple[str, ...], n: int = 4) -> tuple[str, ...]:
        """`n` choices in random order: the answer, then wrong ones that the clip shows, then any."""
        wrong = [w for w in dict.fromkeys(likely) if w != answer]
        rest = [w for w in others if w != answer and w not in wrong]
        self.rng.shuffle(wrong)
        self.rng.shuffle(rest)
        chosen = [answer, *(wrong + rest)[: n - 1]]
        return tuple(chosen[i] for i in self.rng.permutation(n))

    def question(
        self, type_: QuestionType, text: str, answer: str, choices: tuple[str, ...], *sights: _Sight
    ) -> Question:
        scenes = tuple(dict.fromkeys(s.scene_index for s in sights))
        return Question(type_, text, answer, choices, tuple(s.places() for s in sights), scenes[0], scenes)

    def presence(self) -> Question | None:
        present = {s.kind for s in self.shaped}
        absent = [s for s in SHAPES if s not in present]
        options = _one_each(self.shaped, lambda s: s.kind)
        if not options or len(absent) < 3:
            return None
        sight = self.pick(options)
        names = self.choices(sight.kind, [], (sight.kind, *absent))
        return self.question("presence", self.text("presence", *names), sight.kind, names, sight)

    def colour(self) -> Question | None:
        options = _one_each(self.shaped, lambda s: s.kind)
        if not options:
            return None
        sight = self.pick(options)
        choices = self.choices(sight.colour, [s.colour for s in self.sights], tuple(COLOURS))
        return self.question("colour", self.text("colour", kind=sight.kind), sight.colour, choices, sight)

    def shape(self) -> Question | None:
        options = [s for s in _one_each(self.sights, lambda s: s.colour) if s.kind in SHAPES]
        if not options:
            return None
        sight = self.pick(options)
        choices = self.choices(sight.kind, [s.kind for s in self.shaped], SHAPES)
        return self.question("shape", self.text("shape", colour=sight.colour), sight.kind, choices, sight)

    def count(self) -> Question | None:
        if not self.shaped:
            return None
        planted = _planted_count(self.clip)
        kind = planted if planted else self.pick(self.shaped).kind
        found = {s.scene_index: s for s in self.shaped if s.kind == kind}
        if not 1 <= len(found) <= len(COUNTS):
            return None
        sights = [found[i] for i in sorted(found)]
        choices = self.choices(COUNTS[len(found) - 1], [], COUNTS)
        return self.question("count", self.text("count", kind=kind), COUNTS[len(found) - 1], choices, *sights)

    def order(self) -> Question | None:
        options = _one_each(self.shaped, lambda s: s.kind)
        self.rng.shuffle(options)
        by_scene = list({s.scene_index: s for s in options}.values())[:3]
        if len(by_scene) < 3:
            return None
        sights = sorted(by_scene, key=lambda s: s.first_frame)
        answer = ", ".join(s.kind for s in sights)
        orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
        wrong = [", ".join(sights[i].kind for i in o) for o in orders[1:]]
        asked = [sights[i].kind for i in self.rng.permutation(3)]
        return self.question(
            "order", self.text("order", *asked), answer, self.choices(answer, [], (answer, *wrong)), *sights
        )

    def quarter(self) -> Question | None:
        options = _one_each(self.shaped, lambda s: s.kind)
        late = [s for s in options if s.thing.visible is not None and not s.thing.flashes]
        if not options or self.clip.n_frames < 4:
            return None
        sight = self.pick(late or options)
        answer = QUARTERS[4 * sight.first_frame // self.clip.n_frames]
        text = self.text("quarter", kind=sight.kind)
        return self.question("quarter", text, answer, self.choices(answer, [], QUARTERS), sight)

    def direction(self) -> Question | None:
        movers = [s for s in self.sights if s.thing.steps]
        if len(movers) != 1:
            return None
        sight = movers[0]
        first, last = sight.thing.look.cell, sight.thing.steps[-1]
        moved = (int(np.sign(last[0] - first[0])), int(np.sign(last[1] - first[1])))
        answer = next(name for name, delta in DIRECTIONS.items() if delta == moved)
        before = sight.places(lambda look, _: look.cell == first)
        after = sight.places(lambda look, _: look.cell != first)
        choices = self.choices(answer, [], tuple(DIRECTIONS))
        scene = (sight.scene_index,)
        return Question("direction", self.text("direction"), answer, choices, (before, after), scene[0], scene)

    def change(self) -> Question | None:
        changing = [s for s in self.sights if s.thing.becomes]
        if len(changing) != 1:
            return None
        sight = changing[0]
        answer = sight.thing.becomes
        before = sight.places(lambda look, _: look.kind == sight.kind)
        after = sight.places(lambda look, _: look.kind == answer)
        seen = [kind for s in self.sights for kind in s.thing.kinds() if kind in DIGITS]
        scene = (sight.scene_index,)
        choices = self.choices(answer, seen, DIGITS)
        return Question("change", self.text("change"), answer, choices, (before, after), scene[0], scene)

    def flash(self) -> Question | None:
        flashing = [s for s in self.sights if s.thing.flashes]
        if len(flashing) != 1:
            return None
        seen = [s.kind for s in self.sights if s.kind in DIGITS]
        sight = flashing[0]
        return self.question("flash", self.text("flash"), sight.kind, self.choices(sight.kind, seen, DIGITS), sight)

    def small(self) -> Question | None:
        small = [s for s in self.shaped if s.thing.look.size == "small"]
        if len(small) != 1:
            return None
        choices = self.choices(small[0].kind, [s.kind for s in self.shaped], SHAPES)
        return self.question("small", self.text("small"), small[0].kind, choices, small[0])

    def room(self) -> Question | None:
        options = []
        for sight in self.shaped:
            same = [s for s in self.shaped if s.kind == sight.kind]
            here = [s for s in same if s.scene_index == sight.scene_index]
            if len(here) == 1 and {s.colour for s in same} - {sight.colour}:
                options.append(sight)
        if not options:
            return None
        sight = self.pick(options)
        seen = [s.colour for s in self.shaped if s.kind == sight.kind]
        text = self.text("room", room=room_name(sight.scene.room), kind=sight.kind)
        choices = self.choices(sight.colour, seen, tuple(COLOURS))
        return self.question("room", text, sight.colour, choices, sight)

    def after(self) -> Question | None:
        alone = {
            s.scene_index: s
            for s in self.shaped
            if len(s.scene.things) == 1 and s.scene_index > 0 and not s.thing.steps
        }
        if not alone:
            return None
        sight = self.pick(list(alone.values()))
        room = self.clip.scenes[sight.scene_index - 1].room
        near = [s.kind for s in self.shaped if abs(s.scene_index - sight.scene_index + 1) <= 2]
        choices = self.choices(sight.kind, near, SHAPES)
        text = self.text("after", room=room_name(room))
        named = (sight.scene_index - 1,)
        return Question("after", text, sight.kind, choices, (sight.places(),), sight.scene_index, named)

    def exists(self) -> Question | None:
        if not self.shaped:
            return None
        present = {(s.colour, s.kind) for s in self.shaped}
        sight = self.pick(self.shaped)
        colour, kind, answer = sight.colour, sight.kind, "yes"
        if self.rng.random() < 0.5:
            halves = [(c, k) for c in COLOURS for k in SHAPES if (c == colour) != (k == kind) and (c, k) not in present]
            colour, kind = halves[int(self.rng.integers(len(halves)))]
            answer = "no"
        text = self.text("exists", a=article(colour), colour=colour, kind=kind)
        shown = [sight] if answer == "yes" else []
        scenes = tuple(s.scene_index for s in shown)
        return Question(
            "exists", text, answer, ("yes", "no"), tuple(s.places() for s in shown), sight.scene_index, scenes
        )


def _planted_count(clip: Clip) -> str:
    """The shape a `count` clip was made for: the only one that may repeat without bystanders of its kind."""
    return clip.planted if clip.focus == "count" else ""


def ask(clip: Clip, type_: QuestionType, rng: np.random.Generator, wording: int | None = None) -> Question | None:
    """A question of `type_` about `clip`, None when it does not allow one.

    `wording` picks the template (3 is the held-out one); None draws from the trained wordings.
    """
    question: Question | None = getattr(_Asker(clip, rng, wording), type_)()
    return question


def words() -> Iterator[str]:
    """Every word of every template, with the fields left out."""
    for templates in TEMPLATES.values():
        for template in templates:
            blank = "".join(part.split("}")[-1] for part in ("}" + template).split("{"))
            yield from "".join(c if c.isalpha() else " " for c in blank.lower()).split()
