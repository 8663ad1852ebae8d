"""An index that an attacker wrote: no job reads, writes or deletes outside it, and each ends in one line.

Beside the index lies a bait folder that no job has business in; inotify tells whether anything of it was touched.
"""

import importlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.index.commit_plan import Plan
from pipeline.index.snapshot import SNAPSHOT, Index
from pipeline.types import video_id_of
from tests.old_index import copy_of_old_index
from tests.s3 import s3_server, variables_set
from tests.watching import watching

Attack = Callable[[Path, Path], None]
TABLE_FILE = "c00000001-g0000.parquet"
UP = "../../bait"


def commit_that(**plan: Any) -> Attack:
    """An open commit whose plan holds these."""

    def attack(index: Path, bait: Path) -> None:
        whole = {**json.loads(Plan(3, "0123456789abcdef").to_json()), **plan}
        (index / Plan(3, "").path).write_text(json.dumps(whole))

    return attack


def snapshot_that(**fields: Any) -> Attack:
    def attack(index: Path, bait: Path) -> None:
        path = index / SNAPSHOT
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return attack


def link(name: str, to: str = "") -> Attack:
    """A link in place of a file or folder of the index, that leads to the bait."""

    def attack(index: Path, bait: Path) -> None:
        place = index / name
        if place.is_dir():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        place.symlink_to(bait / to)

    return attack


def fifo(name: str) -> Attack:
    def attack(index: Path, bait: Path) -> None:
        (index / name).unlink(missing_ok=True)
        os.mkfifo(index / name)

    return attack


def text(name: str, content: str | bytes) -> Attack:
    def attack(index: Path, bait: Path) -> None:
        (index / name).parent.mkdir(parents=True, exist_ok=True)
        (index / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return attack


def rows_that(table: str, change: Callable[[list[dict[str, Any]]], object]) -> Attack:
    """Rows of a table, changed where they lie."""

    def attack(index: Path, bait: Path) -> None:
        path = index / table / sorted(os.listdir(index / table))[0]
        rows = pq.ParquetFile(path).read()
        found = rows.to_pylist()
        change(found)
        pq.write_table(pa.Table.from_pylist(found, schema=rows.schema), path)

    return attack


def video_at(uri: str, root: str | None = None) -> Attack:
    """The ledger names a video elsewhere: as indexed, with clips that say the same, and as failed."""

    def attack(index: Path, bait: Path) -> None:
        at = uri.replace("BAIT", str(bait))
        for path in sorted((index / "videos").iterdir()):
            rows = pq.ParquetFile(path).read()
            changed = rows.to_pylist()
            for row in changed:
                row |= {"uri": at, "root": (root or row["root"]).replace("BAIT", str(bait))}
                row |= {"status": "partial", "error_class": "NoFrames"}
            pq.write_table(pa.Table.from_pylist(changed, schema=rows.schema), path)

    return attack


def other_types(table: str) -> Attack:
    def attack(index: Path, bait: Path) -> None:
        path = index / table / sorted(os.listdir(index / table))[0]
        pq.write_table(pa.table({"video_id": [1, 2], "uri": [[], []]}), path)

    return attack


def _set(name: str, value: Any) -> Callable[[list[dict[str, Any]]], object]:
    return lambda rows: [row.__setitem__(name, value) for row in rows]


def _no_utf8(index: Path, bait: Path) -> None:
    path = index / "videos" / sorted(os.listdir(index / "videos"))[0]
    rows = pq.ParquetFile(path).read()
    place = rows.schema.get_field_index("name")
    bad = pa.array([b"\xff\xfe"] * len(rows), pa.binary()).view(pa.string())
    pq.write_table(rows.set_column(place, rows.schema.field(place), bad), path)


ATTACKS: dict[str, Attack] = {
    "commit removes": commit_that(removes={"clips": [f"{UP}/file.txt"]}),
    "commit removes what it rewrites": commit_that(
        removes={"clips": [f"{UP}/file.txt"]}, rewrites={"clips": {TABLE_FILE: [f"{UP}/file.txt"]}}
    ),
    "commit writes": commit_that(
        removes={"clips": [TABLE_FILE]}, rewrites={"clips": {f"{UP}/new.parquet": [TABLE_FILE]}}
    ),
    "commit in another table": commit_that(removes={"../bait": ["file.txt"]}),
    "commit takes": commit_that(inputs=[["../../../bait/file"]]),
    "commit takes an absolute path": commit_that(inputs=[["/etc/passwd"]]),
    "commit has a body": commit_that(token="/../../../bait/file", has_body=True),
    "commit of other types": commit_that(inputs=3, rewrites=[]),
    "commit drops": commit_that(drops={"videos": [["x", ["y"]]]}),
    "closed commit": commit_that(done=True, removes={"clips": [f"{UP}/file.txt"]}),
    "snapshot names": snapshot_that(files={"clips": {f"{UP}/secret.parquet": 1}}),
    "snapshot of another table": snapshot_that(files={"../bait": {TABLE_FILE: 1}}),
    "snapshot of other types": snapshot_that(files=[1], commit="x"),
    "snapshot's encoder": snapshot_that(encoder={"encoder_id": "../bait@\x1b[2J", "dim": 256}),
    "snapshot's width": snapshot_that(encoder={"encoder_id": "builtin@027c3e03af7e", "dim": 10**12}),
    "snapshot nested": text(SNAPSHOT, "[" * 100_000),
    "snapshot is a list": text(SNAPSHOT, "[]"),
    "snapshot is a link": link(SNAPSHOT, "file.txt"),
    "snapshot is a FIFO": fifo(SNAPSHOT),
    "_state is a link": link("_state"),
    "commits are a link": link("_state/commits"),
    "staging is a link": link("_state/staging"),
    "tmp is a link": link("_state/tmp"),
    "lock is a link": link("_state/lock", "new"),
    "lock is a FIFO": fifo("_state/lock"),
    "holder is a link": link("_state/lock.json", "file.txt"),
    "views are a link": link("views.sql", "file.txt"),
    "views reach out": text("views.sql", "COPY (SELECT 1) TO 'BAIT/new'; SELECT * FROM read_text('BAIT/file.txt');"),
    "standing is a link": link("_state/standing.json", "file.txt"),
    "standing of other types": text("_state/standing.json", '{"answer:x:video": {"a": 1}}'),
    "standing of another text": text("_state/standing.json", '{"answer:0123456789abcdef:video": "Other?"}'),
    "staged key": text("_state/staging/..%2f..%2fbait.parquet", b"x"),
    "staged link": link("_state/staging/stagedlink.parquet", "secret.parquet"),
    "a table is a link": link("clips"),
    "a table's file is a link": link(f"clips/{TABLE_FILE}", "secret.parquet"),
    "the ledger is a link": link("videos"),
    "runs are a link": link("runs"),
    "a run is a link": link("runs/99991231T000000-00000000.parquet", "secret.parquet"),
    "a table's file is a FIFO": fifo(f"segments/{TABLE_FILE}"),
    "a table's file is cut": text(f"captions/{TABLE_FILE}", b"PAR1 and then nothing PAR1"),
    "ledger of other types": other_types("videos"),
    "clips of other types": other_types("clips"),
    "runs of other types": other_types("runs"),
    "ledger without ids": rows_that("videos", _set("video_id", "../../bait")),
    "fingerprints of nothing": rows_that("videos", _set("fingerprints", [{"stage": "x=;:", "fingerprint": "a=b;c"}])),
    "text that is no text": _no_utf8,
    "a configuration of other types": rows_that("runs", _set("config", '{"roots": {"x": 1}, "p": "y"}')),
    "a configuration that is none": rows_that("runs", _set("config", "\x1b]0;x\x07")),
    "a video elsewhere": video_at("file://BAIT/video.mp4"),
    "a video and a root elsewhere": video_at("file://BAIT/video.mp4", "file://BAIT"),
    "a video elsewhere, above its root": video_at("s3://test-bucket/old-archive/../../other/x.mp4"),
    "a video of another bucket": video_at("s3://other-bucket/x.mp4", "s3://other-bucket"),
    "/etc/passwd": video_at("file:///etc/passwd", "file:///etc"),
}

ASK = ["--question", "Is it red?", "--num-cpus", "1", "--abstain-below", "2"]  # no frame is looked at
JOBS: dict[str, list[str]] = {
    "status": ["--index", "INDEX"],
    "verify": ["--index", "INDEX"],
    "search": ["--index", "INDEX", "a red circle"],
    "report": ["--index", "INDEX", "--output", "OUT/report.html"],
    "query": ["--index", "INDEX", "SELECT count(*) FROM videos"],
    "export": ["--index", "INDEX", "--what", "segments", "--clips", "--output", "OUT/clips"],
    "ask": ["--index", "INDEX", *ASK],
    "retry": ["--index", "INDEX"],
    "purge": ["--index", "INDEX", "--video", "s3://test-bucket/old-archive/planted-5-000.mp4", "--yes"],
    "index": ["OUT/archive", "--output", "INDEX", "--model", "builtin", "--num-cpus", "1"],
}
OPENS_VIDEOS = {"ask", "retry", "export"}
"""Attacks that only name a video elsewhere must be refused by these; others do not open it."""


@pytest.fixture(scope="module")
def empty_s3() -> Iterator[None]:
    """Where the index says its videos are, there are none: whoever may look for them is told so at once."""
    with s3_server() as variables, variables_set(variables):
        yield


@pytest.fixture
def handlers() -> Iterator[None]:
    """Jobs that work set handlers of signals; this process gets its own back."""
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def attacked(folder: Path, attack: Attack) -> tuple[Path, Path]:
    """An index as the attacker left it, and the bait beside it."""
    bait = folder / "bait"
    bait.mkdir(parents=True)
    index = copy_of_old_index(folder)
    for name in ("staging", "tmp"):  # git keeps no empty folder
        (index / "_state" / name).mkdir(exist_ok=True)
    (bait / "file.txt").write_text("not of this index")
    for name in ("file.parquet", "secret.parquet", TABLE_FILE):
        shutil.copy(index / "clips" / TABLE_FILE, bait / name)
    (bait / "video.mp4").write_bytes(b"private")
    (folder / "archive").mkdir()
    (folder / "archive" / "dangling.mp4").symlink_to("nowhere")  # a row for jobs.index to write, and nothing to decode
    attack(index, bait)
    if (index / "views.sql").is_file() and not (index / "views.sql").is_symlink():
        views = (index / "views.sql").read_text()
        (index / "views.sql").write_text(views.replace("BAIT", str(bait)))
    return index, bait


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("handlers", "empty_s3")
@pytest.mark.parametrize("job", JOBS)
def test_no_job_leaves_an_index_that_an_attacker_wrote(
    job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = importlib.import_module(f"jobs.{job}").main
    wrong = []
    for number, (name, attack) in enumerate(ATTACKS.items()):
        folder = tmp_path / str(number)
        index, bait = attacked(folder, attack)
        flags = [flag.replace("INDEX", str(index)).replace("OUT", str(folder)) for flag in JOBS[job]]
        before = {path.name: path.read_bytes() for path in bait.iterdir()}
        with watching(bait) as touched:
            try:
                code = main(flags)
            except Exception as error:  # whatever escapes a job is what this test looks for
                code = -1
                wrong.append(f"{name}: {type(error).__name__}: {error} at {error.__traceback__}")
        said = capsys.readouterr()
        after = {path.name: path.read_bytes() for path in bait.iterdir()}
        if touched or before != after:
            wrong.append(f"{name}: touched {touched}")
        n_errors = sum(line.startswith("error: ") for line in said.err.splitlines())
        if code not in (-1, 0, 2, 3, 4) or "Traceback" in said.err or (code in (2, 4) and n_errors != 1):
            wrong.append(f"{name}: exit {code}: {said.err[-500:]}")
        if job in OPENS_VIDEOS and "elsewhere" in name and code != 2:
            wrong.append(f"{name}: exit {code}, the video was not refused: {said.err[-300:]}")
        shutil.rmtree(folder)
    assert not wrong, "\n".join(wrong)


@pytest.mark.usefixtures("handlers")
def test_the_index_under_attack_is_read_when_nobody_attacks(tmp_path: Path) -> None:
    """So that the jobs above are refused for what was done to it, and not for what it is."""
    index, _ = attacked(tmp_path, lambda index, bait: None)
    for job in ("status", "verify", "search", "query", "index"):
        flags = [flag.replace("INDEX", str(index)).replace("OUT", str(tmp_path)) for flag in JOBS[job]]
        assert importlib.import_module(f"jobs.{job}").main(flags) == 0, job
    videos = Index.open(str(index)).read("videos")
    assert all(row["video_id"] == video_id_of(row["uri"]) for row in videos.to_pylist())


@pytest.mark.parametrize("inside", ["it's", "a[1]b*c?", "@clips@", "quo\"te'); DROP TABLE x; --", "new\nline"])
def test_views_of_an_index_at_any_path(inside: str, tmp_path: Path) -> None:
    """The path of an index stands in views.sql as text, and never as SQL or as a pattern."""
    import duckdb

    from pipeline.index.views import publish_views

    index = Index.open(str(copy_of_old_index(tmp_path / inside)))
    publish_views(index, 0.9)
    with duckdb.connect() as connection:
        connection.execute((Path(index.url) / "views.sql").read_text())
        assert connection.sql("SELECT count(*) FROM clips").fetchall() == [(2,)]
