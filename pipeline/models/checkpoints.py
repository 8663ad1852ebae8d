"""From a model's name to a folder of files: `builtin`, a local path, or a hub id. Nothing is loaded here.

safetensors only: weights in any other format are refused before anything is read. What a checkpoint's small files can
tell is told here, and needs no torch; `ready.py` tries the rest before any worker starts.
"""

import json
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from pipeline.config import ModelIdentity, Thresholds
from pipeline.decoding.resize import Normalisation, normalisation_from, recipe_from
from pipeline.errors import UsageError
from pipeline.models import hub
from pipeline.models.headers import Weights, read_weights

BUILTIN = Path(__file__).parent / "builtin"
THRESHOLDS_FILE = "thresholds.json"
FAMILIES = {
    "model": ("llava_onevision", "qwen2_5_vl", "qwen3_vl", "internvl", "smolvlm"),
    "encoder": ("siglip", "clip"),
}
"""What each role reads. SigLIP2 of fixed resolution is of type siglip; NaFlex (type siglip2) is not read.

Models are those of `adatp.families`, named again because a driver starts without torch; a test compares the two.
"""
SIGLIP_384 = {"size": {"height": 384, "width": 384}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
"""lmms-lab's checkpoints carry no preprocessor_config.json: their tower is always siglip-so400m-patch14-384."""
PAPER_THRESHOLDS = Thresholds(tau_s=0.95, tau_t=0.05)
"""Published values (paper Sec. 4.1), for the encoder that `_is_the_papers` knows. Any other is measured."""


@dataclass(frozen=True)
class ModelFiles:
    """A checkpoint whose small files are on this machine's disk; those of the hub may still lack their weights."""

    path: Path
    identity: ModelIdentity
    normalisation: Normalisation
    role: str  # "model" or "encoder"
    is_from_hub: bool

    @property
    def what(self) -> str:
        """How messages about it begin: the flag and what it was given."""
        return f"--{self.role} {self.identity.name}"

    @property
    def embedding_width(self) -> int:
        """Width of an encoder's vectors, from its configuration alone."""
        config = json.loads((self.path / "config.json").read_text())
        if config.get("model_type") == "clip":
            return int(config.get("projection_dim", 512))  # what transformers assumes when left out, here and below
        return int(config.get("vision_config", {}).get("hidden_size", 768))

    def weights(self) -> Weights:
        """Names and shapes of its tensors, from the files here or from the hub. Raises UsageError."""
        if self.is_from_hub and not self._has_weights():
            return hub.remote_weights(self.identity.name, self.path, self.what)
        return read_weights(self.path, self.what)

    def _has_weights(self) -> bool:
        try:
            read_weights(self.path, self.what)
        except UsageError:
            return False
        return True


def resolve_model(name: str, role: str) -> ModelFiles:
    """The small files of `name` for `role` ("model" or "encoder"), fetched if it is a hub id that is not cached.

    Raises UsageError when there is no such checkpoint, a local one has no complete safetensors, its architecture is
    another, it needs code of its own, or there is no preprocessor_config.json.
    """
    what = f"--{role} {name}"
    is_from_hub = False
    if name == "builtin":
        path, revision = BUILTIN / role, None
    elif Path(name).is_dir():
        path, revision = Path(name).resolve(), None
        read_weights(path, what)
    else:
        _refuse_lost_path(name, what)
        path, is_from_hub = hub.fetch_small(name, what), True
        revision = path.name  # snapshots/<commit>
    _refuse_family(path, name, role)
    config = _preprocessor(path, what, role)
    try:
        resize, normalisation = recipe_from(config), normalisation_from(config)
    except ValueError as error:
        raise UsageError(f"{what}: {error}") from error
    identity = ModelIdentity(name, revision or _content_revision(path), resize)
    return ModelFiles(path, identity, normalisation, role, is_from_hub)


def fetch(files: ModelFiles, say: Callable[[str], object] = lambda line: None) -> None:
    """Weights that are still on the hub are brought here, at the revision of `files`. Raises UsageError."""
    if files.is_from_hub:
        hub.fetch_weights(files.identity.name, files.identity.revision, files.what, say)


def open_model(identity: ModelIdentity, role: str) -> ModelFiles:
    """The checkpoint a run decided on, complete and at that revision, on whatever node this is. Raises UsageError."""
    what = f"--{role} {identity.name}"
    if identity.name == "builtin" or Path(identity.name).is_dir():
        found = resolve_model(identity.name, role)
        if found.identity.revision != identity.revision:
            raise UsageError(f"{what}: here it is revision {found.identity.revision}, not {identity.revision}")
        return found
    _refuse_lost_path(identity.name, what)
    path = hub.fetch_weights(identity.name, identity.revision, what, lambda line: None)
    return ModelFiles(path, identity, normalisation_from(_preprocessor(path, what, role)), role, is_from_hub=True)


def known_thresholds(encoder: ModelFiles, override: Path | None = None) -> Thresholds | None:
    """tau_s and tau_t from `override`, from beside the encoder's weights, or published; None where none are known."""
    source = override or encoder.path / THRESHOLDS_FILE
    if source.is_file():
        try:
            values = json.loads(source.read_text())
            return Thresholds(tau_s=float(values["tau_s"]), tau_t=float(values["tau_t"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{source}: expected JSON with numbers tau_s and tau_t") from error
    if override is not None:
        raise UsageError(f"--thresholds {override}: no such file")
    return PAPER_THRESHOLDS if _is_the_papers(encoder) else None


def resolve_thresholds(encoder: ModelFiles, override: Path | None = None) -> Thresholds:
    """`known_thresholds`, for jobs that have no archive to measure them on. UsageError without any."""
    if (known := known_thresholds(encoder, override)) is not None:
        return known
    name = encoder.identity.name
    raise UsageError(
        f"--encoder {name}: its similarity thresholds are unknown; measure them once with "
        f"`python -m jobs.calibrate --encoder {name} ARCHIVE --output thresholds.json` "
        "and pass --thresholds thresholds.json"
    )


def _is_the_papers(encoder: ModelFiles) -> bool:
    """Whether this is google/siglip-so400m-patch14-384, by its configuration: a local copy is the same encoder.

    SigLIP2's so400m of the same size has another vocabulary.
    """
    config = json.loads((encoder.path / "config.json").read_text())
    vision, text = config.get("vision_config", {}), config.get("text_config", {})
    shape = [vision.get(key) for key in ("hidden_size", "num_hidden_layers", "image_size", "patch_size")]
    return (
        config.get("model_type") == "siglip" and shape == [1152, 27, 384, 14] and text.get("vocab_size", 32000) == 32000
    )


def _refuse_family(path: Path, name: str, role: str) -> None:
    """Said before anything loads; lmms-lab's own layout is known by its vision tower."""
    what = f"--{role} {name}"
    config = _json(path / "config.json", what)
    if role == "model" and "mm_vision_tower" in config:
        return  # names classes of LLaVA-NeXT's own code, whose layout is read here
    family = config.get("model_type")
    if role == "model" and family == "internvl_chat":
        twin = f"OpenGVLab/{Path(name).name}-{'HF' if '3_5' in name else 'hf'}"
        raise UsageError(
            f"{what}: OpenGVLab's original layout needs code of its own, which is not run; expected {twin}"
        )
    if family not in FAMILIES[role]:
        code = "; it needs code of its own, which is not run" if "auto_map" in config else ""
        raise UsageError(f"{what}: its model_type is {family!r}; expected {' or '.join(FAMILIES[role])}{code}")


def _preprocessor(path: Path, what: str, role: str) -> dict[str, Any]:
    """What makes pixels of frames. A Video LLM's own file for videos goes first, as in transformers.

    transformers 5 saves them all in processor_config.json.
    """
    kinds = ("video", "image") if role == "model" else ("image",)
    if (processor := path / "processor_config.json").is_file():
        parts = _json(processor, what)
        for kind in kinds:
            if isinstance(found := parts.get(f"{kind}_processor"), dict):
                return found
    of_videos, config = path / "video_preprocessor_config.json", path / "preprocessor_config.json"
    if role == "model" and of_videos.is_file():
        return _json(of_videos, what)
    if not config.is_file() and "mm_vision_tower" in _json(path / "config.json", what):
        return SIGLIP_384
    return _json(config, what)


def refuse_control_tokens(model: ModelFiles, texts: Iterable[str]) -> None:
    """Prompts are plain text: one that spells a control token of the model could end the turn or add a video."""
    tokens: set[str] = set()
    if (config := model.path / "tokenizer_config.json").is_file():
        added = _json(config, model.what).get("added_tokens_decoder", {}).values()
        tokens |= {str(token["content"]) for token in added if token.get("special")}
    if (tokenizer := model.path / "tokenizer.json").is_file():
        added = _json(tokenizer, model.what).get("added_tokens", ())
        tokens |= {str(token["content"]) for token in added if token.get("special")}
    for text in texts:
        if found := sorted(token for token in tokens if token in text):
            raise UsageError(f"{text!r} holds {', '.join(found)}, which controls the model; expected plain words")


def _refuse_lost_path(name: str, what: str) -> None:
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UsageError(f"{what}: no such folder on {socket.gethostname()}")


def _json(path: Path, what: str) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(f"{what}: {path.name} is missing from it")
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise UsageError(f"{what}: {path.name} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{what}: {path.name} holds a {type(values).__name__}; expected a JSON object")
    return values


def _content_revision(path: Path) -> str:
    """12 hex digits over every configuration byte and, of each weight file, its size, its first and its last MiB."""
    sha, mib = sha256(), 1 << 20
    for file in sorted(p for p in path.iterdir() if p.suffix in (".json", ".safetensors", ".jinja", ".txt", ".model")):
        sha.update(file.name.encode() + file.stat().st_size.to_bytes(8, "big"))
        with file.open("rb") as stream:
            sha.update(stream.read(mib))
            stream.seek(max(0, file.stat().st_size - mib))
            sha.update(stream.read(mib))
    return sha.hexdigest()[:12]
