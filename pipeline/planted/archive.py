"""An archive of planted H.264 files and the truth about it, for demos, self-tests and end-to-end tests.

One question text is asked of every video of an index, so an archive is made around a few questions that each of its
videos can answer. A frame of a clip is on screen for one second; pictures change a quarter of a second before the full
second, so that a sample at second k shows frame k whatever a decoder rounds.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.errors import UsageError
from pipeline.planted.captions import caption, facts
from pipeline.planted.items import seed_of
from pipeline.planted.questions import TEMPLATES, QuestionType
from pipeline.planted.render import Nuisance, render
from pipeline.planted.scene import Clip, sample_clip
from pipeline.planted.video import FILE_PX, write_video
from pipeline.planted.vocabulary import COLOURS, SHAPES

LEAD_S = 0.25  # by how much a picture changes before the full second
TRUTH_FILE = "truth.json"


@dataclass(frozen=True)
class StandingQuestion:
    """Asked of every video."""

    type: QuestionType
    text: str


@dataclass(frozen=True)
class VideoTruth:
    """What is true of one file."""

    name: str
    seconds: int
    caption: str
    things: dict[str, int]
    """ "red star" and how often a scene shows one."""
    cuts_s: tuple[float, ...]
    """Seconds at which a sample each second first shows a new scene."""
    changes_s: tuple[float, ...]
    """Seconds at which a sample each second shows something else than the one before; cuts are among them."""
    answers: dict[str, str]
    """Question text to answer."""


@dataclass(frozen=True)
class Truth:
    seed: int
    questions: tuple[StandingQuestion, ...]
    videos: tuple[VideoTruth, ...]

    @property
    def n_facts(self) -> int:
        return sum(len(v.answers) + len(v.things) for v in self.videos)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def read_truth(path: Path) -> Truth:
    """What `Truth.save` wrote. UsageError when it was another version's."""
    raw, times = json.loads(path.read_text()), ("cuts_s", "changes_s")
    try:
        videos = tuple(VideoTruth(**{**v, **{name: tuple(v[name]) for name in times}}) for v in raw["videos"])
    except (KeyError, TypeError) as error:
        raise UsageError(f"{path} was made by another version of this package; remove its folder") from error
    return Truth(raw["seed"], tuple(StandingQuestion(**q) for q in raw["questions"]), videos)


@dataclass(frozen=True)
class _Subjects:
    """What this archive's questions are about: how the eight shapes and one colour are spread over each video."""

    trio: tuple[str, ...]  # three shapes, each once in every video, in scenes of their own
    offered: tuple[str, ...]  # four shapes, one of which every video shows
    other: str  # the shape of the one bystander, where there is one
    colour: str  # of exactly one thing in every video

    @staticmethod
    def draw(rng: np.random.Generator) -> "_Subjects":
        shapes = [str(s) for s in rng.permutation(SHAPES)]
        return _Subjects(tuple(shapes[:3]), tuple(shapes[3:7]), shapes[7], str(rng.choice(list(COLOURS))))

    def questions(self) -> tuple[StandingQuestion, ...]:
        return (
            StandingQuestion("presence", TEMPLATES["presence"][0].format(*self.offered)),
            StandingQuestion("colour", TEMPLATES["colour"][0].format(kind=self.trio[0])),
            StandingQuestion("shape", TEMPLATES["shape"][0].format(colour=self.colour)),
            StandingQuestion("order", TEMPLATES["order"][0].format(*self.trio)),
        )

    def plant(self, clip: Clip, rng: np.random.Generator) -> Clip | None:
        """`clip` with its things made over so that the questions have answers; None when it does not allow it."""
        places = [(i, j) for i, scene in enumerate(clip.scenes) for j in range(len(scene.things))]
        order = [places[k] for k in rng.permutation(len(places))]
        hosts = list({i: (i, j) for i, j in order}.values())[:3]
        rest = [place for place in order if place not in hosts]
        if len(hosts) < 3 or not rest:
            return None
        kinds = dict(zip(hosts, self.trio, strict=True))
        kinds[rest[0]] = str(rng.choice(self.offered))
        kinds |= dict.fromkeys(rest[1:2], self.other)
        made = tuple(
            replace(
                scene,
                things=tuple(
                    replace(thing, look=replace(thing.look, kind=kinds[i, j]))
                    for j, thing in enumerate(scene.things)
                    if (i, j) in kinds
                ),
            )
            for i, scene in enumerate(clip.scenes)
        )
        return replace(clip, scenes=made) if all(scene.things for scene in made) else None

    def answers(self, clip: Clip) -> dict[str, str] | None:
        """The clip's answers in the order of `questions`, None when one of them has none."""
        things = [t for scene in clip.scenes for t in scene.things]
        coloured = [t.look.kind for t in things if t.look.colour == self.colour]
        if len(coloured) != 1 or any(t.look.size == "small" for t in things):
            return None
        (seen,) = {t.look.kind for t in things} & set(self.offered)
        colour = next(t.look.colour for t in things if t.look.kind == self.trio[0])
        order = ", ".join(t.look.kind for t in things if t.look.kind in self.trio)  # scenes come in order of time
        values = (seen, colour, coloured[0], order)
        return {question.text: value for question, value in zip(self.questions(), values, strict=True)}


def render_archive(directory: Path, seed: int, n_videos: int = 12, seconds: int = 24, split: str = "demo") -> Truth:
    """Write `n_videos` MP4 files of `seconds` (8 to 32) into `directory`, with truth.json beside the folder's files.

    The same seed gives the same archive; seeds of `split` are never those of training. Raises ValueError on a length
    that one clip of an index cannot hold.
    """
    if not 8 <= seconds <= 32:
        raise ValueError(f"expected 8 to 32 seconds a video, a frame each, got {seconds}")
    directory.mkdir(parents=True, exist_ok=True)
    subjects = _Subjects.draw(np.random.default_rng(seed_of(split, "subjects", seed)))
    videos = tuple(_render_video(directory, subjects, split, seed, i, seconds) for i in range(n_videos))
    truth = Truth(seed, subjects.questions(), videos)
    truth.save(directory / TRUTH_FILE)
    return truth


def _render_video(directory: Path, subjects: _Subjects, split: str, seed: int, index: int, seconds: int) -> VideoTruth:
    attempt = 0
    while True:
        rng = np.random.default_rng(seed_of(split, f"{seed}/{index}", attempt))
        attempt += 1
        clip = subjects.plant(sample_clip(rng, seconds, "order"), rng)
        answers = subjects.answers(clip) if clip is not None and len(clip.scenes) <= 6 else None
        if clip is not None and answers is not None:
            break
    name = f"planted-{seed}-{index:03d}.mp4"
    frames = render(clip, rng, Nuisance.sample(rng), side=FILE_PX)
    write_video(directory / name, frames, lead_s=LEAD_S)
    text = caption(clip)
    cuts, changes = (tuple(map(float, frames)) for frames in (clip.cuts(), clip.changes()))
    return VideoTruth(name, seconds, text, dict(facts(text)), cuts, changes, answers)
