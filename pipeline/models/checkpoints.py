"""From a model's name to a folder of files: `builtin`, a local path, or a hub id. Nothing is loaded here.

safetensors only: weights in any other format are refused before anything is read.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

from pipeline.config import ModelIdentity, Thresholds
from pipeline.decoding.resize import Normalisation, normalisation_from, recipe_from
from pipeline.errors import UsageError

BUILTIN = Path(__file__).parent / "builtin"
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
THRESHOLDS_FILE = "thresholds.json"
FAMILIES = {"model": ("llava_onevision",), "encoder": ("siglip", "clip")}
"""What each role reads. SigLIP2 of fixed resolution is of type siglip; NaFlex (type siglip2) is not read."""
SIGLIP_384 = {"size": {"height": 384, "width": 384}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
"""lmms-lab's checkpoints carry no preprocessor_config.json: their tower is always siglip-so400m-patch14-384."""
KNOWN_THRESHOLDS = {"google/siglip-so400m-patch14-384": Thresholds(tau_s=0.95, tau_t=0.05)}
"""Published values (paper Sec. 4.1). Other encoders carry a thresholds.json, made by jobs.calibrate."""


@dataclass(frozen=True)
class ModelFiles:
    """A checkpoint on this machine's disk."""

    path: Path
    identity: ModelIdentity
    normalisation: Normalisation

    @property
    def embedding_width(self) -> int:
        """Width of an encoder's vectors, from its configuration alone."""
        config = json.loads((self.path / "config.json").read_text())
        if "projection_dim" in config and config.get("model_type") == "clip":
            return int(config["projection_dim"])
        return int(config.get("vision_config", {}).get("hidden_size", 768))  # what transformers assumes when left out


def resolve_model(name: str, role: str) -> ModelFiles:
    """The files of `name` for `role` ("model" or "encoder"), downloaded if it is a hub id that is not cached.

    Raises UsageError when there is no such checkpoint, it has no safetensors, or no preprocessor_config.json.
    """
    if name == "builtin":
        path, revision = BUILTIN / role, None
    elif Path(name).is_dir():
        path, revision = Path(name).resolve(), None
    else:
        path = _from_hub(name, role)
        revision = path.name  # snapshots/<commit>
    if not list(path.glob("*.safetensors")):
        raise UsageError(f"--{role} {name}: no *.safetensors in it; other weight formats can run code and are not read")
    _refuse_family(_json(path / "config.json", name, role), name, role)
    config = _preprocessor(path, name, role)
    try:
        resize, normalisation = recipe_from(config), normalisation_from(config)
    except ValueError as error:
        raise UsageError(f"--{role} {name}: {error}") from error
    return ModelFiles(path, ModelIdentity(name, revision or _content_revision(path), resize), normalisation)


def resolve_thresholds(encoder: ModelFiles, override: Path | None = None) -> Thresholds:
    """tau_s and tau_t of this encoder: from `override`, beside its weights, or published. UsageError without any."""
    source = override or encoder.path / THRESHOLDS_FILE
    if source.is_file():
        values = json.loads(source.read_text())
        try:
            return Thresholds(tau_s=float(values["tau_s"]), tau_t=float(values["tau_t"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{source}: expected numbers tau_s and tau_t, got {values!r}") from error
    if override is not None:
        raise UsageError(f"--thresholds {override}: no such file")
    if encoder.identity.name in KNOWN_THRESHOLDS:
        return KNOWN_THRESHOLDS[encoder.identity.name]
    raise UsageError(
        f"--encoder {encoder.identity.name}: its similarity thresholds are unknown; measure them once with "
        f"`python -m jobs.calibrate --encoder {encoder.identity.name} ARCHIVE --output thresholds.json` "
        "and pass --thresholds thresholds.json"
    )


def _refuse_family(config: dict[str, Any], name: str, role: str) -> None:
    """Said before anything loads; LLaVA-Video in lmms-lab's own layout is known by its vision tower."""
    if role == "model" and "mm_vision_tower" in config:
        return
    if (family := config.get("model_type")) not in FAMILIES[role]:
        raise UsageError(f"--{role} {name}: its model_type is {family!r}; expected {' or '.join(FAMILIES[role])}")


def _preprocessor(path: Path, name: str, role: str) -> dict[str, Any]:
    config = path / "preprocessor_config.json"
    if not config.is_file() and "mm_vision_tower" in _json(path / "config.json", name, role):
        return SIGLIP_384
    return _json(config, name, role)


def refuse_control_tokens(model: ModelFiles, texts: Iterable[str]) -> None:
    """Prompts are plain text: one that spells a control token of the model could end the turn or add a video."""
    tokens: set[str] = set()
    if (config := model.path / "tokenizer_config.json").is_file():
        added = json.loads(config.read_text()).get("added_tokens_decoder", {}).values()
        tokens |= {str(token["content"]) for token in added if token.get("special")}
    if (tokenizer := model.path / "tokenizer.json").is_file():
        added = json.loads(tokenizer.read_text()).get("added_tokens", ())
        tokens |= {str(token["content"]) for token in added if token.get("special")}
    for text in texts:
        if found := sorted(token for token in tokens if token in text):
            raise UsageError(f"{text!r} holds {', '.join(found)}, which controls the model; expected plain words")


def _from_hub(name: str, role: str) -> Path:
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UsageError(f"--{role} {name}: no such folder")
    try:
        return Path(snapshot_download(name, allow_patterns=HUB_FILES))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UsageError(f"--{role} {name}: neither a folder here nor a repository on the hub") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise UsageError(f"--{role} {name}: not a folder here, not cached, and the hub cannot be reached") from error


def _json(path: Path, name: str, role: str) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(f"--{role} {name}: {path.name} is missing from it")
    try:
        values: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise UsageError(f"--{role} {name}: {path.name} is not JSON: {error}") from error
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
