"""What changed between two nights, and what the second night does: `python -m tests.pipeline.incremental` writes the
table of docs/running.md. Planned by the job's own code over real folders; no video is opened.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from pipeline.config import IndexConfig
from pipeline.ledger import untouched_record, videos_table
from pipeline.models import BUILTIN
from pipeline.plan import Plan, known_videos, plan_run
from pipeline.prepare import prepare
from pipeline.run import recipe_for

PAGE = Path(__file__).resolve().parents[2] / "docs" / "running.md"
BEGIN, END = "<!-- incremental table: written by python -m tests.pipeline.incremental -->\n", "<!-- end of that -->\n"
N_CLIPS = 2
SECOND_ROOT = "second"


@dataclass(frozen=True)
class Cell:
    """A change, the flags of the second night, and how many of 4 videos (or of clips) each consequence touches."""

    change: str
    flags: str
    apply: Callable[[Path], None]
    config: Callable[[IndexConfig], IndexConfig]
    decoded: int = 0  # from the start: probe, decode, embed, describe
    again: int = 0  # decoded at the stored times; segments and embeddings stay
    deleted: int = 0
    refused: str = ""


def _same(config: IndexConfig) -> IndexConfig:
    return config


def _nothing(folder: Path) -> None:
    pass


def _other_encoder(config: IndexConfig) -> IndexConfig:
    encoder = Path(config.output).parent / "encoder"
    shutil.copytree(BUILTIN / "encoder", encoder, dirs_exist_ok=True)
    return replace(config, encoder=str(encoder))


def _add(folder: Path) -> None:
    (folder / "new.mp4").write_bytes(b"new")


def _change(folder: Path) -> None:
    (folder / "a.mp4").write_bytes(b"other bytes")


def _rename(folder: Path) -> None:
    (folder / "a.mp4").rename(folder / "z.mp4")


def _delete(folder: Path) -> None:
    (folder / "a.mp4").unlink()


def _second_root(folder: Path) -> None:
    (folder.parent / SECOND_ROOT).mkdir()
    (folder.parent / SECOND_ROOT / "e.mp4").write_bytes(b"e")


def _unmount(folder: Path) -> None:
    _second_root(folder)
    for video in folder.glob("*.mp4"):
        video.unlink()


def _only_second(config: IndexConfig) -> IndexConfig:
    return replace(config, roots=(str(Path(config.roots[0]).parent / SECOND_ROOT),))


def _both(config: IndexConfig) -> IndexConfig:
    return replace(config, roots=(*config.roots, *_only_second(config).roots))


def _redo(stage: str, change: Callable[[IndexConfig], IndexConfig]) -> Callable[[IndexConfig], IndexConfig]:
    return lambda config: replace(change(config), redo=stage)


def _less_pruned(config: IndexConfig) -> IndexConfig:
    return replace(config, p=0.5)


def _sparser(config: IndexConfig) -> IndexConfig:
    return replace(config, sampling="every=2s")


CELLS = (
    Cell("nothing", "", _nothing, _same),
    Cell("a new file", "", _add, _same, decoded=1),
    Cell("a file with other content", "", _change, _same, decoded=1),
    Cell("a file renamed", "", _rename, _same, decoded=1, deleted=1),
    Cell("a file deleted", "", _delete, _same, deleted=1),
    Cell("a root is empty or unmounted, another is not", "", _unmount, _both, decoded=1),
    Cell("a second root of one video, alone", "", _second_root, _only_second, decoded=1),
    Cell("a second root of one video, beside the first", "", _second_root, _both, decoded=1),
    Cell("another caption prompt", "", _nothing, lambda c: replace(c, caption_prompt="What moves?"), again=4),
    Cell("a new question", "", _nothing, lambda c: replace(c, questions=("Why?",)), again=4),
    Cell("no captions asked", "--caption none", _nothing, lambda c: replace(c, caption_prompt=None)),
    Cell("another p, model or --prune", "", _nothing, _less_pruned, refused="caption"),
    Cell("another p, model or --prune", "--redo caption", _nothing, _redo("caption", _less_pruned), again=4),
    Cell("another encoder", "", _nothing, _other_encoder, refused="embed"),
    Cell("another encoder", "--redo embed", _nothing, _redo("embed", _other_encoder), decoded=4),
    Cell("other sampling", "", _nothing, _sparser, refused="sample"),
    Cell("other sampling", "--redo caption", _nothing, _redo("caption", _sparser), refused="sample"),
    Cell("other sampling", "--redo sample", _nothing, _redo("sample", _sparser), decoded=4),
)


def second_night(cell: Cell, folder: Path) -> Plan:
    """The plan of the second night, over an index that holds four videos of the first."""
    archive = folder / "archive"
    archive.mkdir()
    for name in "abcd":
        (archive / f"{name}.mp4").write_bytes(name.encode())
    config = IndexConfig((str(archive),), str(folder / "index"), "builtin")
    ledger = _first_night(config)
    cell.apply(archive)
    prepared = prepare(cell.config(config))
    recipe = recipe_for(prepared, None)
    return plan_run(prepared.listing.table, ledger, recipe, prepared.config.redo, prepared.listing.covers)


def _first_night(config: IndexConfig) -> pa.Table:
    prepared = prepare(config)
    recipe = recipe_for(prepared, None)
    made = [{"stage": stage, "fingerprint": recipe.fingerprints[stage]} for stage in recipe.wanted]
    rows = videos_table(
        [
            untouched_record(listed, "indexed", "first", None) | {"n_clips": N_CLIPS, "fingerprints": made}
            for listed in prepared.listing.table.to_pylist()
        ]
    )
    return known_videos(rows.to_batches())


def incremental_table() -> str:
    head = "| changed since | flags | decoded anew | at stored times | deleted | models loaded | refused (exit 2) |"
    rows = [head, "|---|---|---|---|---|---|---|"]
    for cell in CELLS:
        with tempfile.TemporaryDirectory() as folder:
            plan = second_night(cell, Path(folder))
        modes = [todo.mode for todo in plan.todo]
        refused = ", ".join(f"would redo {n} clips from {stage}" for stage, n in plan.conflicts.items())
        loaded = "none" if not plan.todo or plan.conflicts else "once an actor"
        flags = f"`{cell.flags}`" if cell.flags else ""
        counts = f"{modes.count('index')} | {modes.count('again')} | {len(plan.deleted)}"
        rows.append(f"| {cell.change} | {flags} | {counts} | {loaded} | {refused} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + incremental_table() + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
