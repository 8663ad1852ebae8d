"""The benchmark's two ends: models from disk before it, Parquet, JSON and plots after it."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError

from adatp import CheckpointError, Engine, load
from pipeline.errors import UsageError
from pipeline.evaluation.captions import Captioned, score_captions
from pipeline.evaluation.evaluate import Answer, Bench
from pipeline.evaluation.verdict import Verdict
from pipeline.models.checkpoints import fetch, resolve_model, resolve_thresholds
from pipeline.models.encoder import Encoder


def open_bench(model: str, encoder: str) -> Bench:
    """Load both models in fp32 on this machine's CPU. Raises UsageError when files are missing or damaged."""
    model_files, encoder_files = resolve_model(model, "model"), resolve_model(encoder, "encoder")
    fetch(model_files)
    fetch(encoder_files)
    try:
        engine = Engine(load(model_files.path))
        seeing = Encoder(encoder_files.path)
    except (CheckpointError, SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise UsageError(f"the weights of {model} or {encoder} do not load: {error}") from error
    thresholds = resolve_thresholds(encoder_files)
    return Bench(engine, seeing, model_files.normalisation, encoder_files.normalisation, thresholds)


def write_results(
    folder: Path,
    answers: Sequence[Answer],
    verdict: Verdict,
    captions: Sequence[Captioned] = (),
    about: Mapping[str, object] | None = None,
) -> list[Path]:
    """Every answer and caption as Parquet, the verdict as JSON, and the plots where matplotlib is there.

    `about` says what was run; it stands in the JSON beside commit and machine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    items = folder / "answers.parquet"
    pq.write_table(pa.Table.from_pylist([asdict(a) for a in answers]), items, compression="zstd")
    summary = folder / "verdict.json"
    written = [items, summary]
    told: dict[str, object] = {}
    if captions:
        written.append(folder / "captions.parquet")
        pq.write_table(pa.Table.from_pylist([asdict(c) for c in captions]), written[-1], compression="zstd")
        told["captions"] = [asdict(s) for s in score_captions(captions, verdict.reference)]
    summary.write_text(json.dumps({**(about or {}), **asdict(verdict), **told, **_where()}, indent=1) + "\n")
    try:
        from pipeline.evaluation.plots import plot_verdict
    except ImportError:
        return written
    return [*written, *plot_verdict(folder, answers, verdict)]


def _where() -> dict[str, str]:
    here = Path(__file__).parent
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=False
    ).stdout.strip()
    machine = f"{os.cpu_count()}-core {platform.machine()} CPU, {torch.get_num_threads()} threads"
    return {"commit": commit or "unknown", "machine": machine, "torch": torch.__version__}
