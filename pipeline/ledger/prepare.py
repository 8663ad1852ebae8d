"""Everything a run knows before it opens a video: models found, archive listed. Whatever cannot work is said here."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.archive.listing import Listing, list_archive
from pipeline.config import IndexConfig, Thresholds
from pipeline.decoding.sampling import parse_sampling
from pipeline.models.checkpoints import ModelFiles, refuse_control_tokens, resolve_model, resolve_thresholds


@dataclass(frozen=True)
class Prepared:
    """A configuration whose models exist and whose archive was listed."""

    config: IndexConfig
    model: ModelFiles
    encoder: ModelFiles
    thresholds: Thresholds
    listing: Listing


def prepare(config: IndexConfig, thresholds_file: Path | None = None) -> Prepared:
    """UsageError for an unknown model or encoder, an encoder without thresholds, a missing root, an empty archive."""
    parse_sampling(config.sampling)
    model = resolve_model(config.model, "model")
    refuse_control_tokens(model, config.texts)
    encoder = resolve_model(config.encoder_name, "encoder")
    thresholds = resolve_thresholds(encoder, thresholds_file)
    return Prepared(config, model, encoder, thresholds, list_archive(config.roots, config.include, config.exclude))
