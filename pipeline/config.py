"""What one run is asked to do: a small frozen value, checked at birth.

`Recipe` is the part of it that decides what rows look like, as a chain of fingerprints: sample -> embed -> caption and
answer. Library versions are not in it; they stand in `runs`.
"""

import json
import math
from dataclasses import asdict, dataclass, field

from pipeline.errors import UsageError
from pipeline.types import EMBED, KINDS, SAMPLE, Bounds, Kind, ResizeRecipe, Target, digest

STAGE_VERSION = {"sample": 1, "embed": 1, "caption": 1, "answer": 1}
"""Raised by hand when a stage's code changes what its rows hold."""

DEFAULT_MODEL = "llava-hf/llava-onevision-qwen2-0.5b-ov-hf"
DEFAULT_ENCODER = "google/siglip-base-patch16-224"
DEFAULT_CAPTION_PROMPT = "Describe this video in detail."
PRUNE_METHODS = (
    "adatp",
    "none",
    "fastv",
    "visionzip",
    "dycoke",
    "pyramiddrop",
    "vidcom2",
    "evs",
    "echoprune",
    "vcast",
    "onsets",
    "random",
    "uniform",
    "framedrop",
    "adatp+repframes",
)
"""What --prune takes, written out so that a command line can be checked without loading torch; a test compares."""

FRAMES_PER_CLIP = 32
CLIPS_PER_ITEM = 8


@dataclass(frozen=True)
class IndexConfig:
    """One run of jobs.index. `caption_prompt` None leaves captions out; `questions` are asked of whole videos."""

    roots: tuple[str, ...]
    output: str
    model: str = DEFAULT_MODEL
    encoder: str | None = None  # None: the model's own
    prune: str = "adatp"
    p: float = 1.0
    sampling: str = "every=1s"
    caption_prompt: str | None = DEFAULT_CAPTION_PROMPT
    questions: tuple[str, ...] = ()
    max_new_tokens: int = 128
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    limit: int | None = None  # videos taken up in this run; the rest stay pending
    budget_s: float | None = None  # no work is begun after this long; what is unfinished then stays pending
    budget_gpu_s: float | None = None  # the same in seconds of GPUs held: two GPUs spend it in half the time
    redo: Kind | None = None  # earliest stage to make again where the recipe differs from the index's own
    max_failed: int | None = None  # newly failed videos tolerated; None: half of them and at least 20
    keep_frames: bool = True
    device: str = "auto"
    batch_size: int | None = None  # clips a describe worker decodes together; None: by the memory it finds
    bounds: Bounds = field(default_factory=Bounds)

    def __post_init__(self) -> None:
        if not self.roots:
            raise UsageError("no archive given; expected at least one folder, file, glob, manifest or s3:// prefix")
        if self.prune not in PRUNE_METHODS:
            raise UsageError(f"--prune {self.prune!r} is unknown; expected one of {', '.join(PRUNE_METHODS)}")
        if not 0 < self.p < math.inf:
            raise UsageError(f"--p {self.p} given; expected a number above 0")
        if self.max_new_tokens < 1:
            raise UsageError(f"--max-new-tokens {self.max_new_tokens} given; expected at least 1")
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"--batch-size {self.batch_size} given; expected at least 1")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit {self.limit} given; expected at least 1")
        if self.redo not in (None, *KINDS):
            raise UsageError(f"--redo {self.redo!r} is unknown; expected one of {', '.join(KINDS)}")
        for text in self.texts:
            if not text.strip():
                raise UsageError("an empty question or caption prompt was given; expected some words")

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything the Video LLM is asked."""
        return (*self.questions, *(() if self.caption_prompt is None else (self.caption_prompt,)))

    @property
    def encoder_name(self) -> str:
        """The encoder to segment and search with: the model's own unless another was named."""
        if self.encoder is not None:
            return self.encoder
        return "builtin" if self.model == "builtin" else DEFAULT_ENCODER

    def as_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True)
class ModelIdentity:
    """A checkpoint as rows record it, and what its preprocessor does to a frame."""

    name: str  # as given: builtin, a hub id, a local path
    revision: str
    resize: ResizeRecipe

    @property
    def id(self) -> str:
        return f"{self.name}@{self.revision}"


@dataclass(frozen=True)
class Thresholds:
    """When two frames are one segment, and when a segment is about a question. They belong to one encoder."""

    tau_s: float
    tau_t: float


@dataclass(frozen=True)
class Recipe:
    """What decides a run's rows. `wanted` are the targets of this command; `fingerprints` and `texts` also cover
    prompts and questions that the index holds already, so that a changed video gets back what it had.
    """

    wanted: tuple[Target, ...]
    fingerprints: dict[Target, str]
    texts: dict[Target, str]  # captions and answers -> what is asked

    @classmethod
    def of(
        cls,
        config: IndexConfig,
        model: ModelIdentity,
        encoder: ModelIdentity,
        thresholds: Thresholds,
        known_texts: dict[Target, str],
        standing: dict[Target, str] | None = None,
    ) -> "Recipe":
        """`standing`: questions kept with the index; wanted like those of the command."""
        asked = (standing or {}) | {Target.answer(question, "video"): question for question in config.questions}
        if config.caption_prompt is not None:
            asked[Target.caption(config.caption_prompt)] = config.caption_prompt
        texts = known_texts | asked
        sample = digest("sample", str(STAGE_VERSION["sample"]), config.sampling, str(FRAMES_PER_CLIP))
        embed = digest("embed", str(STAGE_VERSION["embed"]), sample, encoder.id, repr(encoder.resize), repr(thresholds))
        says = (model.id, repr(model.resize), config.prune, repr(config.p), str(config.max_new_tokens))
        fingerprints = {SAMPLE: sample, EMBED: embed}
        for target, text in texts.items():
            fingerprints[target] = digest(target.kind, str(STAGE_VERSION[target.kind]), embed, *says, text)
        return cls((SAMPLE, EMBED, *sorted(asked)), fingerprints, texts)


@dataclass(frozen=True)
class DescribeSetup:
    """All a describe worker needs to build itself, wherever it runs."""

    model: ModelIdentity
    encoder: ModelIdentity
    thresholds: Thresholds
    recipe: Recipe
    prune: str
    p: float
    max_new_tokens: int
    keep_frames: bool
    device: str  # "auto": a GPU where torch sees one
    run_id: str
    batch_size: int | None = None  # clips decoded together; None: by the memory there is
    abstain_below: float | None = None  # relevance below which jobs.ask puts no question; None: all are put

    @property
    def frame_bytes(self) -> int:
        """Of one decoded frame: pixels for the model, and for an encoder that wants others."""
        sizes = {self.model.resize, self.encoder.resize}
        return sum(3 * size.height * size.width for size in sizes)
