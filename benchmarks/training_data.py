"""Batches for `benchmarks.train_builtin`, rendered as they are needed. Nothing is stored, nothing repeats.

Every clip comes from the train split: its seed is SHA-256 of "shapestream|v1|train|stage|index". A share of the clips
may be filmed by a moving camera (`moving`), as the planted set of that name is.
"""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from transformers import PreTrainedTokenizerFast

from pipeline.planted.captions import CAPTION_PROMPTS, caption
from pipeline.planted.items import HELD_OUT_PAIRS, seed_of
from pipeline.planted.motion import Camera, film, shot
from pipeline.planted.questions import TEMPLATES, TWELVE, QuestionType, article, ask, room_name
from pipeline.planted.render import Nuisance, Pixels, disturb, draw
from pipeline.planted.scene import FOCUSES, Clip, Look, Scene, sample_clip
from pipeline.planted.video import round_trip
from pipeline.planted.vocabulary import COLOURS, FRAME_PX, GRID, KINDS, SHAPES, SIZES, TEXTURES, TONES

MAX_THINGS = 4
ANY_DIGIT = 100
KIND_ID = {name: i for i, name in enumerate(KINDS)}
COLOUR_ID = {name: i for i, name in enumerate(COLOURS)}
SIZE_ID = {name: i for i, name in enumerate(SIZES)}
TONE_ID = {name: i for i, name in enumerate(TONES)}
TEXTURE_ID = {name: i for i, name in enumerate(TEXTURES)}


def picture(scene: Scene, frame: int, nuisance: Nuisance, rng: np.random.Generator) -> Pixels:
    """One training frame, (64, 64, 3): drawn at one of several sizes, sometimes through JPEG, brought to 64."""
    side = FRAME_PX if rng.random() < 0.6 else int(rng.choice([96, 128, 256]))
    plain = draw(scene, frame, side, nuisance.extent)
    if side != FRAME_PX:
        image = Image.fromarray(np.clip(plain, 0, 255).astype(np.uint8))
        filters = (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.BOX)
        if rng.random() < 0.5:
            packed = io.BytesIO()
            image.save(packed, "jpeg", quality=int(rng.integers(60, 95)))
            image = Image.open(packed)
        plain = np.asarray(image.resize((FRAME_PX, FRAME_PX), filters[int(rng.integers(3))]), np.float32)
    return disturb(plain, nuisance, rng)


def filmed_picture(clip: Clip, frame: int, camera: Camera, rng: np.random.Generator) -> Pixels:
    """One frame of a moving camera, (64, 64, 3), through a poor JPEG: a codec of one picture."""
    packed = io.BytesIO()
    Image.fromarray(shot(clip, camera, frame, rng)).save(packed, "jpeg", quality=int(rng.integers(20, 60)))
    return np.asarray(Image.open(packed).resize((FRAME_PX, FRAME_PX), Image.Resampling.BICUBIC))


def covered(looks: tuple[Look, ...], frame: int, camera: Camera | None) -> npt.NDArray[np.int64]:
    """What covers each cell of the picture, (16, 3): kind, colour, size, all plus 1, or 0 where nothing does."""
    shown = np.zeros((GRID * GRID, 3), np.int64)
    for look in looks:
        ids = KIND_ID[look.kind] + 1, COLOUR_ID[look.colour] + 1, SIZE_ID[look.size] + 1
        for row, col in look.cells():
            cell = row * GRID + col
            for place in [cell] if camera is None else camera.places(frame, cell):
                shown[place] = ids
    return shown


def normalised(frames: Pixels) -> torch.Tensor:
    """(..., H, W, 3) uint8 to (..., 3, H, W) float in [-1, 1], as the preprocessor configs say."""
    return torch.from_numpy(frames).movedim(-1, -3).float() / 127.5 - 1.0


@dataclass(frozen=True)
class FrameBatch:
    """B single frames with what they show, and M texts with which frames they fit."""

    pixels: torch.Tensor  # (B, 3, 64, 64)
    cells: torch.Tensor  # (B, 16, 3): kind, colour, size of what covers a cell, 0 for nothing
    rooms: torch.Tensor  # (B, 2): tone, texture
    token_ids: torch.Tensor  # (M, 32)
    fits: torch.Tensor  # (M, B) bool


@dataclass(frozen=True)
class _Text:
    """A text and what a frame must show for it: `things` (kind, colour, size; -1 any), and a room (tone, texture)."""

    text: str
    things: tuple[tuple[int, int, int], ...]
    needs_all: bool = True
    room: tuple[int, int] = (-1, -1)


def _caption_text(looks: tuple[Look, ...]) -> _Text:
    ordered = sorted(looks, key=lambda look: look.cell)
    names = []
    for look in ordered:
        words = ([look.size] if look.size != "medium" else []) + [look.colour]
        words += [look.kind] if look.kind in SHAPES else ["digit", look.kind]
        names.append(" ".join([article(words[0]), *words]))
    things = tuple((KIND_ID[look.kind], COLOUR_ID[look.colour], SIZE_ID[look.size]) for look in ordered)
    return _Text(" and ".join(names) or "nothing", things)


def _query_text(scene: Scene, looks: tuple[Look, ...], rng: np.random.Generator) -> _Text:
    """A question or a phrase about one thing of the frame or its room, and its true condition."""
    room_ids = (TONE_ID[scene.room.tone], TEXTURE_ID[scene.room.texture])
    room = room_name(scene.room)
    if not looks or rng.random() < 0.2:
        forms = (f"the {room} room", f"a {room} room", *(t.format(room=room) for t in TEMPLATES["after"][:3]))
        return _Text(forms[int(rng.integers(len(forms)))], (), room=room_ids)
    look = looks[int(rng.integers(len(looks)))]
    kind, colour, size = KIND_ID[look.kind], COLOUR_ID[look.colour], SIZE_ID[look.size]
    if look.kind not in SHAPES:
        forms = ("digit", "a digit", *TEMPLATES["flash"][:3], *TEMPLATES["change"][:3])
        if rng.random() < 0.5:
            return _Text(forms[int(rng.integers(len(forms)))], ((ANY_DIGIT, -1, -1),))
        return _Text(f"{article(look.colour)} {look.colour} digit {look.kind}", ((kind, colour, -1),))
    others = [s for s in SHAPES if s != look.kind]
    rng.shuffle(others)

    def one(type_: QuestionType, *names: str, **fields: str) -> str:
        return TEMPLATES[type_][int(rng.integers(3))].format(*names, **fields)

    choice = int(rng.integers(9))
    if choice <= 2:
        text = (
            f"{article(look.kind)} {look.kind}",
            one(("colour", "quarter")[int(rng.integers(2))], kind=look.kind),
            one("count", kind=look.kind),
        )
        return _Text(text[choice], ((kind, -1, -1),))
    if choice == 3:
        return _Text(one("shape", colour=look.colour), ((-1, colour, -1),))
    if choice == 4 and look.size == "small":
        return _Text(one("small"), ((-1, -1, size),))
    if choice == 5:
        names = [look.kind, *others[: 2 if rng.random() < 0.5 else 3]]
        rng.shuffle(names)
        text_ = one("order" if len(names) == 3 else "presence", *names)
        return _Text(text_, tuple((KIND_ID[n], -1, -1) for n in names), needs_all=False)
    if choice == 6:
        return _Text(one("room", room=room, kind=look.kind), ((kind, -1, -1),), room=room_ids)
    exists = one("exists", a=article(look.colour), colour=look.colour, kind=look.kind)
    phrase = f"{article(look.colour)} {look.colour} {look.kind}"
    return _Text(exists if choice == 7 else phrase, ((kind, colour, -1),))


def _fits(texts: list[_Text], things: npt.NDArray[np.int64], rooms: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """(M, B): which frames show what each text names."""
    rows = []
    for text in texts:
        fit = np.ones(len(rooms), bool)
        for axis, wanted in enumerate(text.room):
            if wanted >= 0:
                fit &= rooms[:, axis] == wanted
        shown = []
        for atom in text.things:
            match = things[..., 0] >= 0
            for axis, wanted in enumerate(atom):
                if wanted == ANY_DIGIT:
                    match &= things[..., 0] >= len(SHAPES)
                elif wanted >= 0:
                    match &= things[..., axis] == wanted
            shown.append(match.any(1))
        if shown:
            fit &= np.all(shown, 0) if text.needs_all else np.any(shown, 0)
        rows.append(fit)
    return np.stack(rows)


def frame_batch(seed: int, size: int, tokenizer: PreTrainedTokenizerFast, moving: float = 0.0) -> FrameBatch:
    rng = np.random.default_rng(seed)
    pixels: list[Pixels] = []
    texts: list[_Text] = []
    cells = np.zeros((size, GRID * GRID, 3), np.int64)
    things = np.full((size, MAX_THINGS, 3), -2, np.int64)
    rooms = np.zeros((size, 2), np.int64)
    for i in range(size):
        focus = FOCUSES[int(rng.integers(len(FOCUSES)))] if rng.random() < 0.7 else ("change", "flash")[i % 2]
        clip = sample_clip(rng, int(rng.integers(4, 12)), focus)
        frame = int(rng.integers(clip.n_frames))
        scene = clip.scene_at(frame)
        looks = scene.looks(frame)[:MAX_THINGS]
        camera = Camera.sample(rng, clip) if moving and rng.random() < moving else None
        if camera is None:
            pixels.append(picture(scene, frame, Nuisance.sample(rng, strong=True), rng))
        else:
            pixels.append(filmed_picture(clip, frame, camera, rng))
        for j, look in enumerate(looks):
            things[i, j] = KIND_ID[look.kind], COLOUR_ID[look.colour], SIZE_ID[look.size]
        cells[i] = covered(looks, frame, camera)
        rooms[i] = TONE_ID[scene.room.tone], TEXTURE_ID[scene.room.texture]
        texts += [_caption_text(looks), _query_text(scene, looks, rng)]
    ids = tokenizer([t.text for t in texts], padding="max_length", truncation=True, return_tensors="pt").input_ids
    fits = _fits(texts, things, rooms)
    return FrameBatch(
        normalised(np.stack(pixels)), torch.from_numpy(cells), torch.from_numpy(rooms), ids, torch.from_numpy(fits)
    )


@dataclass(frozen=True)
class ClipBatch:
    """B clips of T frames with their questions packed behind one prefix.

    States are the different pictures of all clips; `frame_state[b, t]` is the state frame t of clip b shows.
    A row of tokens is [prefix ids | T * 16 visual | newline | questions]; `segment` tells which question a token
    belongs to (0: the shared prefix), `position` is what it would be were its question alone.
    """

    pixels: torch.Tensor  # (S, 3, 64, 64)
    cells: torch.Tensor  # (S, 16, 3)
    rooms: torch.Tensor  # (S, 2): tone, texture
    frame_state: torch.Tensor  # (B, T)
    token_ids: torch.Tensor  # (B, L) of the questions alone
    segment: torch.Tensor  # (B, L), -1 where padded
    position: torch.Tensor  # (B, L), counted from the end of the prefix
    target: torch.Tensor  # (B, L), -100 where nothing is asked
    kind: torch.Tensor  # (B, L), index into KINDS_OF_TARGET where a target stands


KINDS_OF_TARGET = (*TWELVE, "exists", "caption")


def _states(
    clip: Clip, rng: np.random.Generator
) -> tuple[list[Pixels], list[npt.NDArray[np.int64]], list[tuple[int, int]], list[int]]:
    """The clip's different pictures, what their cells show, their rooms, and which picture each frame is."""
    nuisance = Nuisance.sample(rng, strong=True)
    seen: dict[object, int] = {}
    pictures: list[Pixels] = []
    cells: list[npt.NDArray[np.int64]] = []
    rooms: list[tuple[int, int]] = []
    index: list[int] = []
    for frame in range(clip.n_frames):
        scene = clip.scene_at(frame)
        looks = scene.looks(frame)
        key = (scene.start, looks)
        if key not in seen:
            seen[key] = len(pictures)
            pictures.append(picture(scene, frame, nuisance, rng))
            cells.append(covered(looks, frame, None))
            rooms.append((TONE_ID[scene.room.tone], TEXTURE_ID[scene.room.texture]))
        index.append(seen[key])
    return pictures, cells, rooms, index


def _filmed_states(
    clip: Clip, rng: np.random.Generator
) -> tuple[list[Pixels], list[npt.NDArray[np.int64]], list[tuple[int, int]], list[int]]:
    """As `_states`, through a moving camera and its codec: every frame is a picture of its own."""
    camera = Camera.sample(rng, clip)
    pictures = round_trip(film(clip, camera, rng), camera.crf)
    scenes = [clip.scene_at(frame) for frame in range(clip.n_frames)]
    cells = [covered(scene.looks(frame), frame, camera) for frame, scene in enumerate(scenes)]
    rooms = [(TONE_ID[scene.room.tone], TEXTURE_ID[scene.room.texture]) for scene in scenes]
    return list(pictures), cells, rooms, list(range(clip.n_frames))


def _asked_held_out(answer: str, text: str) -> bool:
    """Whether a colour or shape question pairs a held-out shape with its held-out colour."""
    shown = set(text.lower().replace("?", "").replace(",", "").split()) | {answer}
    return any((shape, colour) in HELD_OUT_PAIRS for shape in shown for colour in shown)


def _turns(clip: Clip, rng: np.random.Generator, n_questions: int, max_caption: int) -> list[tuple[str, str, int]]:
    """(question, answer, kind) of up to `n_questions` and, where it is short enough, the caption."""
    types = [*TWELVE, "exists"]
    order = [clip.focus, clip.focus, *(types[i] for i in rng.permutation(len(types)))]
    turns: dict[str, tuple[str, str, int]] = {}
    for type_ in order:
        if len(turns) == n_questions:
            break
        question = ask(clip, type_, rng)
        if question is None:
            continue
        if type_ in ("colour", "shape", "exists") and _asked_held_out(question.answer, question.text):
            continue
        turns[question.text] = (question.text, question.answer, KINDS_OF_TARGET.index(type_))
    listed = list(turns.values())
    text = caption(clip)
    if len(text.split()) <= max_caption:
        prompt = CAPTION_PROMPTS[int(rng.integers(len(CAPTION_PROMPTS)))]
        listed.append((prompt, text, KINDS_OF_TARGET.index("caption")))
    return listed


def clip_batch(
    seed: int,
    size: int,
    n_frames: int,
    tokenizer: PreTrainedTokenizerFast,
    n_questions: int = 8,
    max_caption: int = 60,
    moving: float = 0.0,
) -> ClipBatch:
    rng = np.random.default_rng(seed)
    pictures: list[Pixels] = []
    cells: list[npt.NDArray[np.int64]] = []
    rooms: list[tuple[int, int]] = []
    frame_state = np.zeros((size, n_frames), np.int64)
    rows: list[tuple[list[int], list[int], list[int], list[int], list[int]]] = []
    for b in range(size):
        clip = sample_clip(rng, n_frames, FOCUSES[int(rng.integers(len(FOCUSES)))])
        filmed = moving and rng.random() < moving
        shown, covers, shown_rooms, index = (_filmed_states if filmed else _states)(clip, rng)
        frame_state[b] = np.array(index) + len(pictures)
        pictures += shown
        cells += covers
        rooms += shown_rooms
        rows.append(_pack(_turns(clip, rng, n_questions, max_caption), tokenizer))
    length = max(len(row[0]) for row in rows)
    padded = [
        torch.tensor([row[column] + [fill] * (length - len(row[0])) for row in rows])
        for column, fill in enumerate((0, -1, 0, -100, 0))
    ]
    return ClipBatch(
        normalised(np.stack(pictures)), torch.from_numpy(np.stack(cells)), torch.tensor(rooms),
        torch.from_numpy(frame_state), *padded,
    )  # fmt: skip


def _pack(
    turns: list[tuple[str, str, int]], tokenizer: PreTrainedTokenizerFast
) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
    """Token ids, segments, positions, next-token targets and kinds of all turns, one after another."""
    ids: list[int] = []
    segments: list[int] = []
    positions: list[int] = []
    targets: list[int] = []
    kinds: list[int] = []
    asked = tokenizer([f"{text}<|im_end|><|im_start|>assistant" for text, _, _ in turns]).input_ids
    answered = tokenizer([f"{answer}<|im_end|>" for _, answer, _ in turns]).input_ids
    for number, (question, answer, (_, _, kind)) in enumerate(zip(asked, answered, turns, strict=True), 1):
        tokens = question + answer[:-1]
        ids += tokens
        segments += [number] * len(tokens)
        positions += range(len(tokens))
        targets += [-100] * (len(question) - 1) + answer
        kinds += [kind] * len(tokens)
    return ids, segments, positions, targets, kinds


def stage_seed(stage: str, index: int, run: int = 0) -> int:
    """Of one batch; another `run` of training draws other clips."""
    return seed_of("train", f"run {run} {stage}" if run else stage, index)
