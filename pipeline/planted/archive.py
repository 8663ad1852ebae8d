"""An archive of planted H.264 files and the truth about it, for demos, self-tests and end-to-end tests.

One question text is asked of every video of an index, so an archive is made around a few questions that each of its
videos can answer. A frame of a clip is on screen for one second; pictures change a quarter of a second before the full
second, so that a sample at second k shows frame k whatever a decoder rounds.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.planted.captions import caption, facts
from pipeline.planted.items import HELD_OUT_PAIRS, seed_of
from pipeline.planted.questions import TEMPLATES, QuestionType, article
from pipeline.planted.render import Nuisance, render
from pipeline.planted.scene import Clip, sample_clip
from pipeline.planted.video import FILE_PX, write_video
from pipeline.planted.vocabulary import COLOURS, QUARTERS, SHAPES

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
    answers: dict[str, str]
    """Question text to answer."""


@dataclass(frozen=True)
class Truth:
    seed: int
    questions: tuple[StandingQuestion, ...]
    videos: tuple[VideoTruth, ...]

    @property
    def n_facts(self) -> int:
        return sum(len(v.answers) + sum(v.things.values()) for v in self.videos)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def read_truth(path: Path) -> Truth:
    raw = json.loads(path.read_text())
    videos = tuple(VideoTruth(**{**video, "cuts_s": tuple(video["cuts_s"])}) for video in raw["videos"])
    return Truth(raw["seed"], tuple(StandingQuestion(**q) for q in raw["questions"]), videos)


@dataclass(frozen=True)
class _Subjects:
    """What this archive's questions are about."""

    shape: str  # one in every video
    colour: str  # of one thing in every video
    offered: tuple[str, ...]  # four shapes, one of which is in every video
    pair: tuple[str, str]  # colour and shape, in some videos

    @staticmethod
    def draw(rng: np.random.Generator) -> "_Subjects":
        shapes = [str(s) for s in rng.permutation(SHAPES)]
        colours = [str(c) for c in rng.permutation(list(COLOURS))]
        pair = next((c, s) for s in shapes[1:] for c in colours[1:] if (s, c) not in HELD_OUT_PAIRS)
        return _Subjects(shapes[0], colours[0], tuple(sorted(shapes[1:5])), pair)

    def questions(self) -> tuple[StandingQuestion, ...]:
        colour, shape = self.pair
        texts: dict[QuestionType, str] = {
            "presence": TEMPLATES["presence"][0].format(*self.offered),
            "colour": TEMPLATES["colour"][0].format(kind=self.shape),
            "shape": TEMPLATES["shape"][0].format(colour=self.colour),
            "quarter": TEMPLATES["quarter"][0].format(kind=self.shape),
            "exists": TEMPLATES["exists"][0].format(a=article(colour), colour=colour, kind=shape),
        }
        return tuple(StandingQuestion(type_, text) for type_, text in texts.items())

    def plant(self, clip: Clip, rng: np.random.Generator, with_pair: bool) -> Clip:
        """`clip` with things of it made into what the questions ask about; whether all have an answer is left open."""
        things = [(i, j) for i, scene in enumerate(clip.scenes) for j in range(len(scene.things))]
        looks: list[dict[str, str]] = [{"kind": self.shape}, {"colour": self.colour}]
        if with_pair:
            looks.append({"colour": self.pair[0], "kind": self.pair[1]})
        scenes = [list(scene.things) for scene in clip.scenes]
        for which, look in zip(rng.permutation(len(things)), looks, strict=False):
            i, j = things[which]
            scenes[i][j] = replace(scenes[i][j], look=replace(scenes[i][j].look, **look))
        return replace(
            clip, scenes=tuple(replace(s, things=tuple(own)) for s, own in zip(clip.scenes, scenes, strict=True))
        )

    def answers(self, clip: Clip) -> dict[str, str] | None:
        """The clip's answers in the order of `questions`, None when one of them has none."""
        things = [(i, t) for i, scene in enumerate(clip.scenes) for t in scene.things]
        mine = [(i, t) for i, t in things if t.look.kind == self.shape]
        coloured = [t for _, t in things if t.look.colour == self.colour]
        offered = {t.look.kind for _, t in things} & set(self.offered)
        if len(mine) != 1 or len(coloured) != 1 or len(offered) != 1 or coloured[0].look.kind not in SHAPES:
            return None
        if any(t.look.size == "small" for _, t in things):
            return None
        scene, thing = clip.scenes[mine[0][0]], mine[0][1]
        quarter = QUARTERS[4 * scene.frames_of(thing).start // clip.n_frames]
        has_pair = any((t.look.colour, t.look.kind) == self.pair for _, t in things)
        values = (offered.pop(), thing.look.colour, coloured[0].look.kind, quarter, "yes" if has_pair else "no")
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
    wanted = "yes" if index % 2 == 0 else "no"
    attempt = 0
    while True:
        rng = np.random.default_rng(seed_of(split, f"{seed}/{index}", attempt))
        attempt += 1
        clip = subjects.plant(sample_clip(rng, seconds, "colour"), rng, wanted == "yes")
        answers = subjects.answers(clip) if 3 <= len(clip.scenes) <= 6 else None
        if answers is not None and list(answers.values())[-1] == wanted:
            break
    name = f"planted-{seed}-{index:03d}.mp4"
    frames = render(clip, rng, Nuisance.sample(rng), side=FILE_PX)
    write_video(directory / name, frames, lead_s=LEAD_S)
    text = caption(clip)
    cuts = tuple(float(cut) for cut in clip.cuts())
    return VideoTruth(name, seconds, text, dict(facts(text)), cuts, answers)
