"""What a run leaves in its folder: answers.parquet, table.json, table.txt, lost.txt and plots."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.models.devices import describe_devices
from pipeline.public_benchmarks.answers import Answer, to_table
from pipeline.public_benchmarks.table import Verdict, groups_of, lines


def write_results(
    folder: Path, answers: Sequence[Answer], verdict: Verdict, config: Mapping[str, object]
) -> list[Path]:
    """Write them; the paths written. Plots where matplotlib is there."""
    folder.mkdir(parents=True, exist_ok=True)
    items, table, text = folder / "answers.parquet", folder / "table.json", folder / "table.txt"
    pq.write_table(to_table(list(answers)), items, compression="zstd")
    record = {**asdict(verdict), "groups": groups_of(answers), "config": config, "made": where_made()}
    table.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    text.write_text("\n".join(lines(verdict)) + "\n")
    lost = folder / "lost.txt"
    lost.write_text("".join(f"{item}\t{why}\n" for item, why in verdict.lost))
    written = [items, table, text, lost]
    try:
        from pipeline.public_benchmarks.plots import plot_verdict
    except ImportError:
        return written
    return [*written, *plot_verdict(folder, verdict)]


def where_made() -> dict[str, str]:
    """Commit, machine and versions: a number without them cannot be made again."""
    here = Path(__file__).parent
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "commit": commit or "unknown",
        "machine": f"{os.cpu_count()}-core {platform.machine()}; {describe_devices()}",
        **{name: version(name) for name in ("torch", "transformers", "av", "decord")},
    }
