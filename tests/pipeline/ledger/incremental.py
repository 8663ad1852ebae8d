"""What changed between two nights, and what the second night does.

`python -m tests.pipeline.ledger.incremental` writes the table of docs/running.md. Whole runs over real videos and
builtin models, without Ray; what they do is counted.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.config import IndexConfig
from pipeline.errors import UsageError
from pipeline.index.snapshot import Index
from pipeline.ledger.prepare import prepare
from pipeline.models.checkpoints import BUILTIN
from pipeline.run import run_index
from tests.archive import render_video
from tests.pipeline.in_process import CountingExecutor

PAGE = Path(__file__).resolve().parents[3] / "docs" / "running.md"
BEGIN, END = (
    "<!-- incremental table: written by python -m tests.pipeline.ledger.incremental -->\n",
    "<!-- end of that -->\n",
)
SECOND_ROOT = "second"
SECONDS = 5
ALL = "videos clips segments frames captions"


@dataclass(frozen=True)
class Cell:
    """A change, the flags of the second night, and how many of 4 videos each consequence touches."""

    change: str
    flags: str
    apply: Callable[[Path], None]
    config: Callable[[IndexConfig], IndexConfig]
    decoded: int = 0  # from the start: probe, decode, embed, describe
    again: int = 0  # decoded at the stored times; segments and embeddings stay
    deleted: int = 0
    refused: str = ""
    models: int = 0  # loaded by one worker of each kind
    tables: str = ""  # of which a file is added or replaced


def _same(config: IndexConfig) -> IndexConfig:
    return config


def _nothing(folder: Path) -> None:
    pass


def _other_encoder(config: IndexConfig) -> IndexConfig:
    encoder = Path(config.output).parent / "encoder"
    shutil.copytree(BUILTIN / "encoder", encoder, dirs_exist_ok=True)
    return replace(config, encoder=str(encoder))


def _add(folder: Path) -> None:
    render_video(folder / "new.mp4", SECONDS, 9)


def _change(folder: Path) -> None:
    render_video(folder / "a.mp4", SECONDS, 8)


def _rename(folder: Path) -> None:
    (folder / "a.mp4").rename(folder / "z.mp4")


def _delete(folder: Path) -> None:
    (folder / "a.mp4").unlink()


def _second_root(folder: Path) -> None:
    render_video(folder.parent / SECOND_ROOT / "e.mp4", SECONDS, 7)


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


def _other_prompt(config: IndexConfig) -> IndexConfig:
    return replace(config, caption_prompt="What moves?")


def _question(config: IndexConfig) -> IndexConfig:
    return replace(config, questions=("Why?",))


def _less_pruned(config: IndexConfig) -> IndexConfig:
    return replace(config, p=0.5)


def _sparser(config: IndexConfig) -> IndexConfig:
    return replace(config, sampling="every=2s")


CELLS = (
    Cell("nothing", "", _nothing, _same),
    Cell("a new file", "", _add, _same, decoded=1, models=2, tables=ALL),
    Cell("a file with other content", "", _change, _same, decoded=1, models=2, tables=ALL),
    Cell("a file renamed", "", _rename, _same, decoded=1, deleted=1, models=2, tables=ALL),
    Cell("a file deleted", "", _delete, _same, deleted=1, tables="videos"),
    Cell("a root is empty or unmounted, another is not", "", _unmount, _both, decoded=1, models=2, tables=ALL),
    Cell("a second root of one video, alone", "", _second_root, _only_second, decoded=1, models=2, tables=ALL),
    Cell("a second root of one video, beside the first", "", _second_root, _both, decoded=1, models=2, tables=ALL),
    Cell("another caption prompt", "", _nothing, _other_prompt, again=4, models=2, tables="videos captions"),
    Cell("a new question", "", _nothing, _question, again=4, models=2, tables="videos answers"),
    Cell("no captions asked", "--caption none", _nothing, lambda c: replace(c, caption_prompt=None)),
    Cell("another p, model or --prune", "", _nothing, _less_pruned, refused="caption"),
    Cell(
        "another p, model or --prune",
        "--redo caption",
        _nothing,
        _redo("caption", _less_pruned),
        again=4,
        models=2,
        tables="videos captions",
    ),
    Cell("another encoder", "", _nothing, _other_encoder, refused="embed"),
    Cell("another encoder", "--redo embed", _nothing, _redo("embed", _other_encoder), decoded=4, models=2, tables=ALL),
    Cell("other sampling", "", _nothing, _sparser, refused="sample"),
    Cell("other sampling", "--redo caption", _nothing, _redo("caption", _sparser), refused="sample"),
    Cell("other sampling", "--redo sample", _nothing, _redo("sample", _sparser), decoded=4, models=2, tables=ALL),
)


@dataclass(frozen=True)
class Night:
    """What a night did, counted where it was done."""

    probes: int = 0
    decodes: int = 0
    opened: frozenset[str] = frozenset()  # names of video files
    models: int = 0
    workers: int = 0
    tables: frozenset[str] = frozenset()
    n_kept: int = 0  # table files left as they are
    statuses: dict[str, str] = field(default_factory=dict)
    refused: str = ""


def first_night(place: Path) -> IndexConfig:
    """Four videos of one clip, indexed."""
    for seed, name in enumerate("abcd"):
        render_video(place / "archive" / f"{name}.mp4", SECONDS, seed)
    config = IndexConfig((str(place / "archive"),), str(place / "index"), "builtin", max_new_tokens=2, device="cpu")
    counts = CountingExecutor()
    run_index(prepare(config), counts, "index", lambda line, /, **facts: None)
    assert (counts.did["probes"], counts.did["decodes"], counts.did["models"]) == (4, 4, 2)
    return config


def second_night(cell: Cell, config: IndexConfig) -> Night:
    """The change, then the run."""
    archive, index = Path(config.roots[0]), Path(config.output)
    cell.apply(archive)
    before, refused = table_files(index), ""
    counts = CountingExecutor()
    try:
        run_index(prepare(cell.config(config)), counts, "index", lambda line, /, **facts: None)
    except UsageError as error:
        refused = str(error)
    after = table_files(index)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    videos = Index.open(str(index)).read("videos", ["name", "status"])
    return Night(
        probes=counts.did["probes"],
        decodes=counts.did["decodes"],
        opened=frozenset(Path(path).name for path in counts.opened),
        models=counts.did["models"],
        workers=counts.did["workers"],
        tables=frozenset(path.parts[0] for path in changed),
        n_kept=sum(before[path] == after.get(path) for path in before),
        statuses=dict(zip(videos["name"].to_pylist(), videos["status"].to_pylist(), strict=True)),
        refused=refused,
    )


def table_files(index: Path) -> dict[Path, bytes]:
    """Files of the tables that commits write, and their bytes."""
    found = (path for path in index.glob("*/*.parquet") if path.parent.name != "runs")
    return {path.relative_to(index): path.read_bytes() for path in found}


def restored(saved: Path, place: Path) -> None:
    """The state after the first night, at the paths it was made at: they are part of what a video is."""
    shutil.rmtree(place)
    shutil.copytree(saved, place)


def table_row(cell: Cell, night: Night) -> str:
    flags = f"`{cell.flags}`" if cell.flags else ""
    deleted = sum(status == "deleted" for status in night.statuses.values())
    touched = [name for name in (*ALL.split(), "answers", "errors") if name in night.tables]
    columns = [night.probes, night.decodes, len(night.opened), night.models, deleted]
    tables = "all but answers and errors" if touched == ALL.split() else ", ".join(touched) or "none"
    refused = f"yes: needs `--redo {night.refused.partition('--redo ')[2].split(';')[0]}`" if night.refused else ""
    return f"| {cell.change} | {flags} | {' | '.join(map(str, columns))} | {tables} | {refused} |"


def incremental_table() -> str:
    """All cells, run now."""
    columns = "changed since, flags, probes, decodes, videos opened, models loaded, deleted, tables touched, refused"
    rows = [f"| {columns.replace(', ', ' | ')} |", "|---" * 9 + "|"]
    with tempfile.TemporaryDirectory() as folder:
        place, saved = Path(folder, "place"), Path(folder, "saved")
        config = first_night(place)
        shutil.copytree(place, saved)
        for cell in CELLS:
            restored(saved, place)
            rows.append(table_row(cell, second_night(cell, config)))
    return "\n".join(rows) + "\n"


def rows_in_page() -> list[str]:
    inside = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    return inside.splitlines()[2:]


def main() -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + incremental_table() + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
