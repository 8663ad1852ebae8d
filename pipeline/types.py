"""The words of DESIGN section 2 as values. They check themselves once, at birth; nobody re-checks them.

Legend of sizes: n frames of a clip, H x W pixels of a frame as the model wants it, D embedding width.
Times are float64 seconds from the first frame a full decode outputs; intervals are half-open [start_s, end_s).
"""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8]  # (n, H, W, 3)


def digest(*parts: str) -> str:
    """32 hex digits of SHA-256 over `parts`, each length-prefixed so that ("ab", "c") differs from ("a", "bc")."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape")
        sha.update(len(data).to_bytes(8, "big") + data)
    return sha.hexdigest()[:32]


def video_id_of(uri: str) -> str:
    """The identity of a video: stable for its URI, whatever its content."""
    return digest("video", uri)


def clip_id_of(video_id: str, clip_index: int) -> str:
    return f"{video_id}-{clip_index:05d}"


def segment_id_of(clip_id: str, segment_index: int) -> str:
    return f"{clip_id}-{segment_index:02d}"


def text_id_of(kind: str, text: str) -> str:
    """prompt_id (`kind` "prompt") or question_id ("question"): the same words are the same row."""
    return digest(kind, text)[:16]


Kind = Literal["sample", "embed", "caption", "answer"]
Scope = Literal["video", "clip"]
Mode = Literal["index", "again"]
ItemKind = Literal["index", "again", "answer"]
Status = Literal["indexed", "partial", "failed", "quarantined", "pending", "deleted"]

KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the order of the chain: what one of them decides, those after it build on."""
SCOPES: tuple[Scope, ...] = get_args(Scope)
STATUSES: tuple[Status, ...] = get_args(Status)

TARGET_FORM = "sample|embed|caption:[0-9A-Za-z_-]+|answer:[0-9A-Za-z_-]+:(video|clip)"


class Target(str):
    """What a video's rows are made for: `sample`, `embed`, `caption:<prompt_id>` or `answer:<question_id>:<scope>`.

    It is this text, which the column `fingerprints` stores; `kind`, `id` and `scope` are its parts. ValueError for
    other text.
    """

    kind: Kind
    id: str  # of the prompt or question; "" for what asks nothing
    scope: Scope | None  # of a question

    def __new__(cls, text: str) -> "Target":
        if not re.fullmatch(TARGET_FORM, text):
            raise ValueError(f"{text!r} given; expected sample, embed, caption:ID or answer:ID:video or :clip")
        target = super().__new__(cls, text)
        kind, _, rest = text.partition(":")
        target.kind = cast(Kind, kind)
        target.id, _, scope = rest.partition(":")
        target.scope = cast(Scope, scope) if scope else None
        return target

    @classmethod
    def caption(cls, prompt: str) -> "Target":
        return cls(f"caption:{text_id_of('prompt', prompt)}")

    @classmethod
    def answer(cls, question: str, scope: Scope) -> "Target":
        return cls(f"answer:{text_id_of('question', question)}:{scope}")

    @property
    def subkey(self) -> str:
        """What tells its rows apart from others of the same video: `<prompt_id>` or `<question_id>:<scope>`."""
        return self.partition(":")[2]

    @property
    def asks_video(self) -> bool:
        """Whether it is a question on a whole video."""
        return self.scope == "video"


SAMPLE, EMBED = Target("sample"), Target("embed")


@dataclass(frozen=True)
class ResizeRecipe:
    """How a frame becomes what a vision tower reads; numbers come from a preprocessor_config.json.

    The frame is resized to (height, width), its aspect not kept. Where `shortest_edge` is set, its shortest edge is
    first brought to that and the centre (height, width) is cut out instead. Where `longest_edge` is set, it is first
    resized to that longest edge with its aspect kept, as SmolVLM2 does. Where `multiple_of` is set, the frame keeps its
    aspect instead: both sides become multiples of it, their product between `min_pixels` and `max_pixels`, and height
    and width are those of a square. `resample` is Pillow's own filter number.
    """

    height: int
    width: int
    resample: int = 3  # bicubic
    shortest_edge: int | None = None
    longest_edge: int | None = field(default=None, repr=False)  # fingerprints hash the repr; older indexes lack it
    multiple_of: int | None = field(default=None, repr=False)
    min_pixels: int = field(default=0, repr=False)
    max_pixels: int = field(default=0, repr=False)


@dataclass(frozen=True)
class Source:
    """Where a video's bytes are, and what the listing saw of them."""

    video_id: str
    uri: str
    path: bytes  # absolute local path, or the s3 key as utf-8
    version: str


@dataclass(frozen=True)
class Bounds:
    """Read from the header before anything is decoded; beyond is `TooLarge`. Each is a flag of jobs.index."""

    max_megapixels: float = 64.0
    max_hours: float = 12.0
    max_samples: int = 100_000
    deadline_s: float = 60.0  # without a finished frame
    memory_bytes: int = 2 << 30  # of the decode child


@dataclass(frozen=True)
class Probe:
    """What one look at a video tells, before its frames are sampled.

    `duration_s` is the span of decodable video: last frame's end minus first frame's start, not the header's claim.
    `width`, `height` are as coded; `rotation` in {0, 90, 180, 270} is what a viewer turns the picture by, clockwise.
    """

    container: str
    codec: str
    width: int
    height: int
    rotation: int
    fps: float | None
    is_vfr: bool
    duration_s: float
    recorded_at_us: int | None
    target_times_s: tuple[float, ...]
    """The sample: presentation time wanted at each place, by the sampling policy the probe was given."""


@dataclass(frozen=True)
class ClipPlan:
    """A clip before decoding: which frames are wanted.

    For each target the frame on screen is taken (last frame whose time <= target). With `unique`, a frame that an
    earlier target of the same video took is not taken again; without, duplicates are kept (uniform sampling).
    `before_s` is the last target of the clip before (None at the video's first), needed to know what was taken.
    """

    clip_index: int
    start_s: float
    end_s: float
    targets_s: tuple[float, ...]
    before_s: float | None = None
    unique: bool = True


@dataclass(frozen=True)
class ClipFrames:
    """A decoded clip. `encoder_frames` is None when encoder and model want the same pixels."""

    clip_index: int
    start_s: float
    end_s: float
    pts_s: tuple[float, ...]  # n, of the frames themselves
    frames: Frames  # (n, H, W, 3) upright RGB
    encoder_frames: Frames | None  # (n, He, We, 3)
    thumbnails: tuple[bytes, ...]  # n JPEGs, aspect true, long edge 256 px

    def __post_init__(self) -> None:
        n = len(self.pts_s)
        others = [] if self.encoder_frames is None else [self.encoder_frames]
        if any(
            a.dtype != np.uint8 or a.ndim != 4 or a.shape[0] != n or a.shape[3] != 3 for a in [self.frames, *others]
        ):
            raise ValueError(
                f"clip {self.clip_index}: expected uint8 frames ({n}, H, W, 3) for {n} times, "
                f"got {[(a.dtype.name, a.shape) for a in [self.frames, *others]]}"
            )
        if len(self.thumbnails) != n:
            raise ValueError(f"clip {self.clip_index}: {n} times but {len(self.thumbnails)} thumbnails")


@dataclass(frozen=True)
class Decoded:
    """What decoding one item gave. `coverage` = decoded span over demuxed span inside the item, 1.0 when healthy."""

    clips: tuple[ClipFrames, ...]
    decoder: str  # "decord" or "pyav"
    coverage: float
    bad_packets: int
