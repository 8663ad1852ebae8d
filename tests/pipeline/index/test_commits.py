"""Commits: killed before or after any storage operation, the next start brings the tables an undisturbed run gives."""

import errno
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import IndexLocked, JobError, UsageError
from pipeline.index import commits
from pipeline.index.commit_plan import open_commit
from pipeline.index.commits import commit, roll_forward
from pipeline.index.compaction import compact
from pipeline.index.drops import drop_everywhere
from pipeline.index.purge import purge
from pipeline.index.runs import record_run
from pipeline.index.snapshot import Encoder, Index
from pipeline.index.staging import decode_item, encode_item, stage, staged_keys, staged_meta
from pipeline.index.tables import COMMITTED_TABLES, TABLES, table_schema
from pipeline.index.verify import verify
from pipeline.storage.places import open_storage
from tests.pipeline.archive_rows import DIM, ENCODER, error_rows, id_of, item_rows, video_rows
from tests.pipeline.decoding.tapped import Killed, killer, raise_killed, recorder, tapped

Tables = dict[str, pa.Table]


def stage_video(index: Index, number: int, **how: Any) -> str:
    key = f"item-{number}-{how.get('version', '1')}"
    stage(index.storage, key, encode_item(item_rows(number, **how)))
    return key


def with_videos(url: str, *numbers: int) -> Index:
    """An index of these videos, each committed by itself."""
    index = Index.create(url, ENCODER)
    for n in numbers:
        commit(index, [stage_video(index, n)], video_rows(n), error_rows(n))
    return index


def tables_of(index: Index) -> Tables:
    """Every table as readers see it, each in one order."""
    return {table: index.read(table).sort_by(_order(table)).combine_chunks() for table in COMMITTED_TABLES}


def globbed(index: Index) -> Tables:
    """Every table as an analyst's plain glob reads it, whatever the snapshot says."""
    found = {}
    for table in COMMITTED_TABLES:
        parts = [index.read_file(f"{table}/{name}") for name in index.storage.list(table)]
        rows = pa.concat_tables([table_schema(table, DIM).empty_table(), *parts])
        found[table] = rows.sort_by(_order(table)).combine_chunks()
    return found


def _order(table: str) -> list[tuple[str, str]]:
    return [(column, "ascending") for column in TABLES[table].order]


def publish(index: Index) -> None:
    keys = staged_keys(index.storage)
    if keys:
        commit(index, keys, video_rows(0, 1, 2), error_rows(3))


def replace(index: Index) -> None:
    """Video 1 changed, and video 3 is new; 0 and 2 share no file with them but their rows must stay."""
    keys = staged_keys(index.storage)
    if keys:
        videos = pa.concat_tables([video_rows(1, version="2"), video_rows(3)])
        commit(index, keys, videos, drops=drop_everywhere([id_of(1)]))


def new_caption(index: Index) -> None:
    """The captions of one prompt are made again; those of another stay."""
    keys = staged_keys(index.storage)
    if keys:
        commit(index, keys, video_rows(1), drops={"captions": [(id_of(1), "p1")], "answers": [(id_of(1), "q1:video")]})


def prepare_publish(index: Index) -> None:
    for n in range(3):
        stage_video(index, n)


def prepare_replace(index: Index) -> None:
    commit(index, [stage_video(index, 0), stage_video(index, 1), stage_video(index, 2)], video_rows(0, 1, 2))
    stage_video(index, 1, version="2", n_clips=3)
    stage_video(index, 3)


def prepare_new_caption(index: Index) -> None:
    other = item_rows(1, prompt_id="p2")
    stage(index.storage, "other", encode_item({"captions": other["captions"]}))
    commit(index, [stage_video(index, 0), stage_video(index, 1), "other"], video_rows(0, 1))
    again = item_rows(1, caption="a dog")
    stage(index.storage, "again", encode_item({"captions": again["captions"], "answers": again["answers"]}))


def prepare_files(index: Index) -> None:
    for n in range(3):
        commit(index, [stage_video(index, n)], video_rows(n), error_rows(n))


def merge(index: Index) -> None:
    compact(index, max_small_files=2)


def purge_two(index: Index) -> None:
    purge(index, [id_of(1), id_of(2)])


SCENARIOS: dict[str, tuple[Callable[[Index], None], Callable[[Index], None]]] = {
    "publish": (prepare_publish, publish),
    "replace": (prepare_replace, replace),
    "new caption": (prepare_new_caption, new_caption),
    "compact": (prepare_files, merge),
    "purge": (prepare_files, purge_two),
}


def prepared(scenario: str, url: str) -> Index:
    index = Index.create(url, ENCODER)
    SCENARIOS[scenario][0](index)
    return index


def undisturbed(scenario: str, url: str) -> tuple[Tables, Tables, list[str]]:
    """Tables before and after the scenario's action, and the storage operations it takes."""
    index = prepared(scenario, url)
    before, points = tables_of(index), list[str]()
    SCENARIOS[scenario][1](Index(tapped(url, recorder(points))))
    return before, tables_of(index), points


def assert_clean(index: Index) -> None:
    """No commit is open, and nothing lies about that the snapshot does not name."""
    snapshot = index.snapshot()
    assert open_commit(index, snapshot) is None
    assert {t: set(index.storage.list(t)) for t in COMMITTED_TABLES} == {
        t: set(snapshot.files.get(t, {})) for t in COMMITTED_TABLES
    }
    assert all(name.endswith(".json") for name in index.storage.list(commits.FOLDER))
    assert index.storage.list("_state/tmp") == {}


def check_recovery(index: Index, action: Callable[[Index], None], before: Tables, after: Tables, where: str) -> None:
    """After a kill: readers see a whole state; the next start and the same action again give the state after."""
    assert tables_of(index) in (before, after), f"a reader saw a half state: killed {where}"
    roll_forward(index)
    action(index)
    assert tables_of(index) == after, f"killed {where}"
    assert globbed(index) == after, f"killed {where}"
    assert_clean(index)
    assert staged_keys(index.storage) == set()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_anywhere_the_next_start_gives_the_tables_of_an_undisturbed_run(scenario: str, tmp_path: Path) -> None:
    before, after, points = undisturbed(scenario, str(tmp_path / "undisturbed"))
    assert before != after or scenario == "compact"
    template = prepared(scenario, str(tmp_path / "template"))
    action = SCENARIOS[scenario][1]
    for at, point in enumerate(points):
        url = str(tmp_path / f"killed-{at}")
        shutil.copytree(template.url, url)
        with pytest.raises(Killed):
            action(Index(tapped(url, killer(at, raise_killed))))
        check_recovery(Index.open(url), action, before, after, f"before {point}")


def test_killed_while_rolling_forward(tmp_path: Path) -> None:
    """Recovery is killed as well, at every point: from an open commit, a half published one and a half closed one."""
    before, after, points = undisturbed("new caption", str(tmp_path / "undisturbed"))
    template = prepared("new caption", str(tmp_path / "template"))
    opened = next(i for i, point in enumerate(points) if point.startswith("create"))
    closing = next(i for i, point in enumerate(points) if point.startswith("delete"))
    for at in (opened + 1, opened + 3, closing + 2):
        for again in range(1000):
            url = str(tmp_path / f"killed-{at}-{again}")
            shutil.copytree(template.url, url)
            with pytest.raises(Killed):
                new_caption(Index(tapped(url, killer(at, raise_killed))))
            try:
                roll_forward(Index(tapped(url, killer(again, raise_killed))))
                break
            except Killed:
                where = f"before {points[at]}, then in recovery at {again}"
                check_recovery(Index.open(url), new_caption, before, after, where)
        assert again > 2


def kill_on_s3(scenario: str, s3_url: str, stride: int) -> None:
    before, after, points = undisturbed(scenario, f"{s3_url}/undisturbed")
    action = SCENARIOS[scenario][1]
    for at in range(0, len(points), stride):
        url = f"{s3_url}/{at}"
        prepared(scenario, url)
        with pytest.raises(Killed):
            action(Index(tapped(url, killer(at, raise_killed))))
        check_recovery(Index.open(url), action, before, after, f"before {points[at]}")


def test_killed_on_s3(s3_url: str) -> None:
    kill_on_s3("replace", s3_url, stride=9)


@pytest.mark.nightly
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_anywhere_on_s3(scenario: str, s3_url: str) -> None:
    kill_on_s3(scenario, s3_url, stride=1)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), PermissionError(errno.EACCES, "Denied")])
def test_a_full_or_forbidden_disk_stops_with_one_line_and_loses_nothing(error: OSError, tmp_path: Path) -> None:
    _, after, points = undisturbed("replace", str(tmp_path / "undisturbed"))

    def fail() -> None:
        raise error

    for at in range(0, len(points), 4):
        url = str(tmp_path / f"failed-{at}")
        prepared("replace", url)
        with pytest.raises(JobError, match=r"storage of .* failed"):
            replace(Index(tapped(url, killer(at, fail))))
        index = Index.open(url)
        roll_forward(index)
        replace(index)
        assert tables_of(index) == after


_KILLED_CHILD = """
import sys
from pipeline.index.snapshot import Index
from tests.pipeline.decoding.tapped import killer, sigkill_self, tapped
from tests.pipeline.index.test_commits import replace
replace(Index(tapped(sys.argv[1], killer(int(sys.argv[2]), sigkill_self))))
"""


def test_sigkill_of_the_process_itself(tmp_path: Path) -> None:
    _, after, points = undisturbed("replace", str(tmp_path / "undisturbed"))
    for share in (0.2, 0.5, 0.8):
        url = str(tmp_path / f"killed-{share}")
        prepared("replace", url)
        at = int(share * len(points))
        child = subprocess.run([sys.executable, "-c", _KILLED_CHILD, url, str(at)], cwd=_repository())
        assert child.returncode == -9
        index = Index.open(url)
        roll_forward(index)
        replace(index)
        assert tables_of(index) == after


def _repository() -> Path:
    return Path(__file__).resolve().parents[3]


def test_readers_beside_a_writer_never_see_a_half_state(tmp_path: Path) -> None:
    """Each commit changes the version of video 0 in every table, so a mixture of two commits would show."""
    index = with_videos(str(tmp_path / "index"), 0, 1)
    stop, wrong, reads = threading.Event(), list[str](), [0]

    def read() -> None:
        reader = Index.open(index.url)
        while not stop.is_set():
            tables = reader.at_one_snapshot(
                lambda at: {t: reader.read_at(at, t) for t in ("videos", "clips", "captions", "segments", "answers")}
            )
            mine = {t: rows.filter(pc.field("video_id") == id_of(0)) for t, rows in tables.items()}
            versions = {v for t, rows in mine.items() for v in rows[f"{'video_' * (t != 'videos')}version"].to_pylist()}
            counts = [len(rows) for rows in mine.values()]
            if len(versions) != 1 or counts != [1, 2, 2, 4, 1]:
                wrong.append(f"{versions} {counts}")
            reads[0] += 1

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for version in range(2, 22):
        key = stage_video(index, 0, version=str(version))
        commit(index, [key], video_rows(0, version=str(version)), drops=drop_everywhere([id_of(0)]))
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong
    assert reads[0] >= 5


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "change", "recaption", "purge", "compact"]),
        st.integers(0, 4),  # the video
        st.one_of(st.none(), st.integers(0, 40)),  # the storage operation the process dies at, if any
    ),
    min_size=3,
    max_size=10,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=_STEPS)
def test_any_history_with_any_crashes_is_the_plain_dictionary(
    steps: list[tuple[str, int, int | None]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The slow obvious index: a dictionary from video to the version and caption its rows were made with."""
    index = Index.create(str(tmp_path_factory.mktemp("history") / "index"), ENCODER)
    expected: dict[int, tuple[str, str]] = {}
    for number, (kind, video, dies_at) in enumerate(steps):
        change = _change(kind, video, number, expected)
        if change is None:
            continue
        act, after = change
        try:
            act(Index(tapped(index.url, killer(-1 if dies_at is None else dies_at, raise_killed))))
        except Killed:
            roll_forward(index)
            act(index)
        expected = after
        assert_clean(index)
        assert tables_of(index) == globbed(index)
        _assert_holds(index, expected)
    assert not expected or verify(index).wrong == ()


def _change(
    kind: str, video: int, number: int, now: dict[int, tuple[str, str]]
) -> tuple[Callable[[Index], object], dict[int, tuple[str, str]]] | None:
    """What the step does to an index (doing it twice is doing it once), and what it makes of the dictionary."""
    version, text = f"v{number}", f"text {number}"
    if kind == "compact":
        return (lambda index: compact(index, max_small_files=1)), now
    if (kind == "add") == (video in now):
        return None
    if kind == "purge":
        return (lambda index: purge(index, [id_of(video)])), {n: held for n, held in now.items() if n != video}
    if kind == "recaption":
        rows, held = {"captions": item_rows(video, now[video][0], caption=text)["captions"]}, (now[video][0], text)
        drops: dict[str, Any] = {"captions": [(id_of(video), "p1")]}
    else:
        rows, held = dict(item_rows(video, version, caption=text)), (version, text)
        drops = dict(drop_everywhere([id_of(video)]))

    def act(index: Index) -> None:
        stage(index.storage, f"item-{number}", encode_item(rows))
        commit(index, [f"item-{number}"], video_rows(video, version=held[0]), drops=drops)

    return act, {**now, video: held}


def _assert_holds(index: Index, expected: dict[int, tuple[str, str]]) -> None:
    videos = {(row["video_id"], row["version"]) for row in index.read("videos").to_pylist()}
    assert videos == {(id_of(n), version) for n, (version, _) in expected.items()}
    for table in ("clips", "segments", "frames", "answers", "captions"):
        parts = [item_rows(n, version, caption=text)[table] for n, (version, text) in expected.items()]
        rows = pa.concat_tables([table_schema(table, DIM).empty_table(), *parts])
        assert index.read(table).sort_by(_order(table)).combine_chunks() == rows.sort_by(_order(table)).combine_chunks()


def test_a_late_writer_is_fenced_by_the_commit_number(url: str) -> None:
    """It read the snapshot, slept while another run committed, and then tries the same number."""
    index = with_videos(url, 0)
    key = stage_video(index, 1)

    def other_run() -> None:
        commit(Index.open(url), [stage_video(index, 2)], video_rows(2))

    late = Index(tapped(url, _once(f"create {commits.FOLDER}/00000002.json", other_run)))
    with pytest.raises(IndexLocked, match="commit 2"):
        commit(late, [key], video_rows(1))
    roll_forward(index)
    assert set(index.read("videos")["video_id"].to_pylist()) == {id_of(0), id_of(2)}
    assert_clean(index)


def test_a_late_writer_cannot_turn_the_snapshot_back(url: str) -> None:
    """It opened commit 2 and slept; another run rolled it forward and committed 3; then it wakes up."""
    index = with_videos(url, 0)
    key = stage_video(index, 1)

    def other_run() -> None:
        other = Index.open(url)
        assert roll_forward(other) == 2
        commit(other, [stage_video(other, 2)], video_rows(2))

    late = Index(tapped(url, _once("replace _state/snapshot.json", other_run)))
    with pytest.raises(IndexLocked, match="snapshot"):
        commit(late, [key], video_rows(1))
    roll_forward(index)
    assert index.snapshot().commit == 3
    assert set(index.read("videos")["video_id"].to_pylist()) == {id_of(0), id_of(1), id_of(2)}
    assert_clean(index)


def _once(point: str, act: Callable[[], None]) -> Callable[[str], None]:
    seen = []

    def at_point(name: str) -> None:
        if name == point and not seen:
            seen.append(name)
            act()

    return at_point


def test_a_commit_is_a_pure_function_of_what_was_staged(tmp_path: Path) -> None:
    """Two runs over the same staged bytes write the same files, byte for byte."""
    digests = []
    for name in ("a", "b"):
        index = prepared("replace", str(tmp_path / name))
        replace(index)
        digests.append(
            {f"{t}/{f}": index.storage.read_bytes(f"{t}/{f}") for t in COMMITTED_TABLES for f in index.storage.list(t)}
        )
    assert digests[0] == digests[1]


def test_staged_rows_come_back_as_they_were(tmp_path: Path) -> None:
    rows = {**item_rows(5), "errors": error_rows(5), "clips": item_rows(5)["clips"].slice(0, 0)}
    data = encode_item(rows, {"video_id": "v"})
    back = decode_item(data)
    assert {t: r.cast(table_schema(t, DIM)).to_pylist() for t, r in back.items()} == {
        t: r.to_pylist() for t, r in rows.items()
    }
    storage = open_storage(str(tmp_path))
    stage(storage, "whole", data)
    stage(storage, "cut", data[:-9])
    assert staged_meta(storage, "whole") == {"video_id": "v"}
    assert staged_meta(storage, "cut") == {}


def test_tables_are_sorted_and_plain_readers_agree(tmp_path: Path) -> None:
    index = with_videos(str(tmp_path / "index"), 3, 1, 2, 0)
    compact(index, max_small_files=1)
    record_run(index, _run_row())
    for table in TABLES:
        files = f"{index.url}/{table}/*.parquet"
        duck = duckdb.sql(f"SELECT * FROM '{files}'").to_arrow_table()
        assert len(duck) == len(index.read(table)), table
        assert len(duck) or table == "shots", f"{table} is empty"  # shots come from a pass of their own
        if table != "runs":
            ids = [row[0] for row in duckdb.sql(f"SELECT video_id FROM '{files}'").fetchall()]
            assert ids == sorted(ids)
    casted = duckdb.sql(f"SELECT embedding::FLOAT[{DIM}] FROM '{index.url}/frames/*.parquet'").fetchall()
    assert [len(vector) for (vector,) in casted] == [DIM] * 24


def test_schemas_and_encodings_of_the_files(tmp_path: Path) -> None:
    index = with_videos(str(tmp_path / "index"), 0)
    for table in COMMITTED_TABLES:
        (name,) = index.storage.list(table)
        with index.storage.arrow().open_input_file(f"{table}/{name}") as source:
            file = pa.parquet.ParquetFile(source)
        found, expected = file.schema_arrow, table_schema(table, DIM)
        assert found.equals(expected)
        assert found.metadata == expected.metadata
        assert [f.metadata[b"description"] for f in found] == [f.metadata[b"description"] for f in expected]
        for column in range(file.metadata.num_columns):
            chunk = file.metadata.row_group(0).column(column)
            assert chunk.compression == "ZSTD"
            if chunk.path_in_schema.startswith("embedding"):
                assert set(chunk.encodings) <= {"PLAIN", "RLE"}


def test_wide_groups_become_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = prepared("replace", str(tmp_path / "plain"))
    replace(plain)
    monkeypatch.setattr(commits, "_GROUP_BYTES", 1)
    split = prepared("replace", str(tmp_path / "split"))
    replace(split)
    assert len(split.snapshot().files["clips"]) > len(plain.snapshot().files["clips"])
    assert tables_of(split) == tables_of(plain)


def test_compaction_keeps_every_row_and_leaves_few_files(tmp_path: Path) -> None:
    index = with_videos(str(tmp_path / "index"), *range(6))
    before = tables_of(index)
    assert compact(index) is None
    assert compact(index, max_small_files=5) is not None
    assert tables_of(index) == before
    assert {t: len(files) for t, files in index.snapshot().files.items()} == dict.fromkeys(COMMITTED_TABLES, 1)
    assert compact(index, max_small_files=5) is None


def test_purge_leaves_nothing_anywhere(tmp_path: Path) -> None:
    index = with_videos(str(tmp_path / "index"), 0, 1, 2)
    stage_video(index, 1, version="2")
    stage_video(index, 4)
    assert purge(index, [id_of(1)]) == {
        "videos": 1, "clips": 2, "captions": 2, "segments": 4, "frames": 6, "answers": 1, "shots": 0, "errors": 1
    }  # fmt: skip
    assert staged_keys(index.storage) == {"item-4-1"}
    needle = id_of(1).encode()
    files = [path for path in Path(index.url).rglob("*") if path.is_file() and "commits" not in path.parts]
    assert files
    assert not [path for path in files if needle in path.read_bytes()]
    assert not [path for path in Path(index.url).rglob("*.json") if needle in path.read_bytes()]
    assert verify(index).wrong == ()


def test_another_encoder_must_replace_every_vector(tmp_path: Path) -> None:
    index = with_videos(str(tmp_path / "index"), 0, 1)
    key = stage_video(index, 0, version="2")
    other = Encoder("other@1", DIM)
    with pytest.raises(JobError, match="have vectors of"):
        commit(index, [key], video_rows(0, version="2"), drops=drop_everywhere([id_of(0)]), encoder=other)
    assert index.snapshot().encoder == ENCODER
    assert roll_forward(index) is None
    both = drop_everywhere([id_of(0), id_of(1)])
    commit(index, [key], video_rows(0, version="2"), drops=both, encoder=other)
    assert index.snapshot().encoder == other


def test_a_commit_that_cannot_be_built_is_never_opened(tmp_path: Path) -> None:
    index = with_videos(str(tmp_path / "index"), 0)
    broken = {"clips": item_rows(1)["clips"].drop_columns(["uri"])}
    stage(index.storage, "broken", encode_item(broken))
    with pytest.raises(UsageError, match="not rows of today's schema"):
        commit(index, ["broken"], video_rows(1))
    with pytest.raises(JobError, match="staged item gone"):
        commit(index, ["gone"], video_rows(1))
    assert roll_forward(index) is None
    assert index.read("videos")["video_id"].to_pylist() == [id_of(0)]
    commit(index, [stage_video(index, 1)], video_rows(1))
    assert_clean(index)


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    index = with_videos(str(tmp_path / "index"), 0)
    for name in ("notes.parquet", "README"):
        (Path(index.url) / "clips" / name).write_bytes(b"mine")
    stray = Path(index.url) / "clips" / "c00000009-g0000.parquet"
    stray.write_bytes(b"half a commit")
    roll_forward(index)
    assert not stray.exists()
    assert (Path(index.url) / "clips" / "notes.parquet").exists()


@pytest.mark.parametrize(
    ("snapshot", "said"),
    [
        (None, "is not an index"),
        (b"{}", "is not a snapshot"),
        (b"no json", "is not a snapshot"),
        (b'{"commit": 1, "files": {}, "encoder": null, "schema_version": 99}', "schema version 99"),
    ],
)
def test_what_is_no_index_is_said(snapshot: bytes | None, said: str, tmp_path: Path) -> None:
    if snapshot is not None:
        open_storage(str(tmp_path)).write_atomic("_state/snapshot.json", snapshot)
    with pytest.raises(UsageError, match=said):
        Index.open(str(tmp_path))


def test_a_file_missing_for_good_is_said_and_not_waited_for(tmp_path: Path) -> None:
    index = with_videos(str(tmp_path / "index"), 0)
    (name,) = index.storage.list("clips")
    index.storage.delete(f"clips/{name}")
    with pytest.raises(JobError, match="missing"):
        index.read("clips")


def test_older_files_lack_columns_added_since(tmp_path: Path) -> None:
    index = with_videos(str(tmp_path / "index"), 0)
    (name,) = index.storage.list("videos")
    older = index.read_file(f"videos/{name}").drop_columns(["recorded_at"])
    index.storage.write_atomic(f"videos/{name}", commits.parquet("videos", older))
    assert index.read("videos")["recorded_at"].to_pylist() == [None]


def test_an_item_staged_by_an_older_program_is_committed(tmp_path: Path) -> None:
    """Columns added since are null, in the index and in what is read from it."""
    index = with_videos(str(tmp_path / "index"), 0)
    newer = ["abstain_below", "question_truncated"]
    rows = item_rows(1)
    stage(index.storage, "old", encode_item({**rows, "answers": rows["answers"].drop_columns(newer)}))
    commit(index, ["old"], video_rows(1))
    mine = index.read("answers", newer, pc.field("video_id") == id_of(1))
    assert mine.to_pylist() == [dict.fromkeys(newer)]


def _run_row() -> dict[str, Any]:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    row = {"run_id": "run-1", "started_at": now, "finished_at": now, "command": "index", "config": "{}", "listed": 4}
    row |= {"ignored": 0, "outcome": "ok", "exit_code": 0, "counts": {"indexed": 1}, "stages": [], "versions": []}
    return row


def test_a_recorded_run_touches_nothing_else(tmp_path: Path) -> None:
    index = with_videos(str(tmp_path / "index"), 0)
    before = {p: p.stat().st_mtime_ns for p in Path(index.url).rglob("*") if p.is_file()}
    record_run(index, _run_row())
    after = {p: p.stat().st_mtime_ns for p in Path(index.url).rglob("*") if p.is_file()}
    assert {p: t for p, t in after.items() if p.parent.name != "runs"} == before
    assert os.listdir(Path(index.url) / "runs") == ["run-1.parquet"]
    assert index.read("runs")["listed"].to_pylist() == [4]


def test_the_page_of_kill_points_is_what_the_matrix_runs() -> None:
    from tests.pipeline.index.crash_table import crash_table  # it imports the scenarios from here

    assert (_repository() / "docs" / "crash_points.md").read_text() == crash_table()
