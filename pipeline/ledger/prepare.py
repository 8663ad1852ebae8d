"""Everything a run knows before it opens a video: models found, archive listed. Whatever cannot work is said here."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.archive.listing import Listing, list_archive
from pipeline.config import IndexConfig, Thresholds
from pipeline.decoding.sampling import parse_sampling
from pipeline.errors import UsageError
from pipeline.index.snapshot import SNAPSHOT, Index, storage_trouble
from pipeline.index.thresholds import read_thresholds
from pipeline.models.checkpoints import (
    PAPER_THRESHOLDS,
    ModelFiles,
    known_thresholds,
    refuse_control_tokens,
    resolve_model,
)
from pipeline.models.ready import make_ready
from pipeline.storage.places import open_storage

MEASURED_ON = 24
"""Videos, evenly spread over the listing, on which the thresholds of an unknown encoder are measured."""
_ROOT = str(Path(__file__).parents[2])
_CHILD = (sys.executable, "-m", "pipeline.execution.measure_thresholds")


@dataclass(frozen=True)
class Prepared:
    """A configuration whose models exist and whose archive was listed. `origin`: where the thresholds are from."""

    config: IndexConfig
    model: ModelFiles
    encoder: ModelFiles
    thresholds: Thresholds
    listing: Listing
    origin: str = "given"


def prepare(
    config: IndexConfig,
    thresholds_file: Path | None = None,
    say: Callable[[str], object] = lambda line: None,
    is_dry: bool = False,
) -> Prepared:
    """UsageError for an unknown model or encoder, a missing root, an empty archive.

    Thresholds are those of `thresholds_file`, else what the index was made with, else the encoder's own, else measured
    on the archive; `is_dry` measures nothing and takes the paper's, since no clip is compared with them yet.
    """
    parse_sampling(config.sampling)
    model = resolve_model(config.model, "model")
    refuse_control_tokens(model, config.texts)
    encoder = resolve_model(config.encoder_name, "encoder")
    known = _known(config, encoder, thresholds_file)
    listing = list_archive(config.roots, config.include, config.exclude)
    if known is not None:
        return Prepared(config, model, encoder, known, listing)
    if is_dry:
        return Prepared(config, model, encoder, PAPER_THRESHOLDS, listing)
    thresholds, origin = _measure(config, encoder, listing, say)
    say(f"{encoder.what}: tau_s {thresholds.tau_s:.4f} and tau_t {thresholds.tau_t:.4f}, {origin}; kept with the index")
    return Prepared(config, model, encoder, thresholds, listing, origin)


def _known(config: IndexConfig, encoder: ModelFiles, given: Path | None) -> Thresholds | None:
    if given is None:
        index = Index(open_storage(config.output))
        with storage_trouble(index):
            stored = read_thresholds(index, encoder.identity.id) if index.storage.exists(SNAPSHOT) else None
        if stored is not None:
            return stored
    return known_thresholds(encoder, given)


def _measure(
    config: IndexConfig, encoder: ModelFiles, listing: Listing, say: Callable[[str], object]
) -> tuple[Thresholds, str]:
    """Measured on up to MEASURED_ON videos; the paper's where these hold too few frames. And which of both it was."""
    there = [row for row in listing.table.to_pylist() if row["refusal"] is None]
    chosen = there[:: max(1, len(there) // MEASURED_ON)][:MEASURED_ON]
    make_ready((encoder,), say)
    say(f"{encoder.what}: its similarity thresholds are unknown; measuring them on {len(chosen)} videos")
    identity = encoder.identity
    asked = {
        "name": identity.name,
        "revision": identity.revision,
        "resize": asdict(identity.resize),
        "sampling": config.sampling,
        "bounds": asdict(config.bounds),
        "sources": [[r["video_id"], r["uri"], os.fsdecode(r["path"]), r["version"]] for r in chosen],
    }
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH"))))}
    done = subprocess.run(_CHILD, input=json.dumps(asked), capture_output=True, text=True, check=False, env=env)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"its process ended with {done.returncode}"])[-1]
        raise UsageError(f"{encoder.what}: its thresholds cannot be measured: {last}")
    found = json.loads(done.stdout.splitlines()[-1])
    if "fault" in found:
        return PAPER_THRESHOLDS, f"the paper's, because this archive shows too little ({found['fault']})"
    origin = f"measured on {found['n_pairs']} neighbouring frames of {found['n_videos']} videos"
    return Thresholds(round(found["tau_s"], 4), round(found["tau_t"], 4)), origin
