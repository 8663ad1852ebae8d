"""The audit finds every way in which an index can be wrong: each rule is broken on purpose, once."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import jobs.purge
import jobs.status
import jobs.verify
from pipeline.index import commits
from pipeline.index.commits import commit
from pipeline.index.lock import index_lock
from pipeline.index.runs import record_run
from pipeline.index.snapshot import SNAPSHOT, Index
from pipeline.index.staging import encode_item, stage
from pipeline.index.tables import SCHEMA_VERSION
from pipeline.index.verify import RULES, verify
from tests.pipeline.archive_rows import DIM, ENCODER, error_rows, id_of, item_rows, shot_rows, uri_of, video_rows
from tests.pipeline.decoding.tapped import Killed, killer, raise_killed, tapped

Row = dict[str, Any]
NAN = float("nan")


def run_row(**counts: int) -> dict[str, Any]:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    row = {"run_id": "run-1", "started_at": now, "finished_at": now, "command": "index", "config": "{}", "listed": 4}
    row |= {"ignored": 0, "outcome": "ok", "exit_code": 0, "counts": counts, "stages": [], "versions": []}
    return row


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Three indexed videos, one failed, one deleted, and the run that says so; one file per table."""
    index = Index.create(str(tmp_path / "index"), ENCODER)
    for n in range(3):
        stage(index.storage, f"item-{n}", encode_item(item_rows(n)))
    stage(index.storage, "shots-0", encode_item({"shots": shot_rows(0)}))
    failed = with_values(video_rows(3, status="failed"), error_class="NoFrames", n_clips=None)
    videos = pa.concat_tables([video_rows(0, 1, 2), failed, video_rows(4, status="deleted", n_clips=0)])
    commit(index, ["item-0", "item-1", "item-2", "shots-0"], videos, error_rows(3))
    record_run(index, run_row(indexed=3, failed=1, deleted=1))
    return index


def test_an_index_on_s3_is_audited_the_same(s3_url: str) -> None:
    index = Index.create(s3_url, ENCODER)
    stage(index.storage, "item-0", encode_item(item_rows(0)))
    commit(index, ["item-0"], video_rows(0))
    assert verify(index).wrong == ()
    index.storage.delete(*index.snapshot().paths("frames"))
    assert len(verify(index).wrong) == 1


def with_values(table: pa.Table, **values: Any) -> pa.Table:
    return pa.Table.from_pylist([{**row, **values} for row in table.to_pylist()], schema=table.schema)


def edit(index: Index, table: str, change: Callable[[list[Row]], Any]) -> None:
    """Change the rows of a table where they lie, as no commit would."""
    (path,) = index.snapshot().paths(table) if table != "runs" else index.run_paths()
    rows = index.read_file(path)
    changed = rows.to_pylist()
    result = change(changed)
    schema = rows.schema.set(0, rows.schema.field(0))
    data = pa.Table.from_pylist(result if isinstance(result, list) else changed, schema=schema)
    index.storage.write_atomic(path, commits.parquet(table, data))
    if table != "runs":
        snapshot = index.snapshot()
        files = {**snapshot.files, table: {path.partition("/")[2]: len(data)}}
        index.storage.write_atomic(SNAPSHOT, replace(snapshot, files=files).to_json())


def put(**values: Any) -> Callable[[list[Row]], None]:
    """The first row of the table gets these values."""
    return lambda rows: rows[0].update(values)


def twice(rows: list[Row]) -> list[Row]:
    return [rows[0], *rows]


def without_first(rows: list[Row]) -> list[Row]:
    return rows[1:]


def first_of(status: str, **values: Any) -> Callable[[list[Row]], None]:
    return lambda rows: next(row for row in rows if row["status"] == status).update(values)


def wanting(stage_name: str) -> Callable[[list[Row]], None]:
    fingerprints = [{"stage": stage_name, "fingerprint": "f"}]
    return first_of("indexed", fingerprints=fingerprints)


BREAKS: dict[str, tuple[str, Callable[[list[Row]], Any]]] = {
    "videos have one row for each video_id": ("videos", twice),
    "a uri has one row": ("videos", lambda rows: rows[0].update(uri=rows[1]["uri"])),
    "status is one of the six": ("videos", put(status="done")),
    "what is not indexed says why, what is indexed does not": ("videos", first_of("failed", error_class=None)),
    "the last run counted the videos that are there": ("runs", put(counts={"indexed": 4, "deleted": 1})),
    "clips have one row for each clip_id": ("clips", twice),
    "captions have one row for each clip_id, prompt_id": ("captions", twice),
    "segments have one row for each segment_id": ("segments", twice),
    "frames have one row for each clip_id, frame_index": ("frames", twice),
    "answers have one row for each video_id, clip_id, scope, question_id": ("answers", twice),
    "shots have one row for each video_id, shot_index": ("shots", twice),
    "the shots of a video follow each other from its first frame on": ("shots", put(end_s=1.5)),
    "runs have one row for each run_id": ("runs", twice),
    "rows belong to a listed video": ("answers", put(video_id="nobody")),
    "rows are of the version the ledger names": ("captions", put(video_version="0")),
    "rows of clips belong to a clip": ("clips", without_first),
    "an indexed video has all its clips, others no more than planned": ("videos", first_of("indexed", n_clips=3)),
    "clip_index counts within n_clips, and clip_id follows it": ("clips", put(clip_index=1)),
    "every clip of an indexed video has the captions its fingerprints name": ("captions", without_first),
    "an indexed video has the answers its fingerprints name": ("videos", wanting("answer:q1:clip")),
    "an answer names its clip exactly when a clip was asked": ("answers", put(scope="clip")),
    "an answer abstained below the threshold it records": (
        "answers",
        put(abstained=True, relevance=0.3, abstain_below=0.2),
    ),
    "n_segments and n_frames of a clip are those of its segments": ("segments", without_first),
    "a clip has all its frames or, where frames are left out, none": ("frames", without_first),
    "a clip knows the time of each of its frames": ("clips", put(frame_pts_s=[2.0, 1.0, 0.0])),
    "frames have the times their clip says": ("frames", put(pts_s=0.5)),
    "frames lie in a segment of their clip": ("frames", put(segment_index=5)),
    "a segment holds the frames it counts": ("frames", put(segment_index=1)),
    "clips lie in their video and do not overlap": ("clips", put(end_s=4.0)),
    "frame times lie in their video, before the end of their clip": ("clips", put(frame_pts_s=[0.0, 1.0, 9.0])),
    "segments tile their clip": ("segments", put(end_s=1.5)),
    "a segment begins with its first frame and holds its best": ("segments", put(best_frame_s=0.5)),
    "captions and answers carry the times of their clip": ("captions", put(start_s=0.5)),
    "rows carry the uri of their video": ("captions", put(uri="file:///elsewhere.mp4")),
    "only the first segment of a video has no boundary score": (
        "segments",
        lambda rows: rows[1].update(boundary_score=None),
    ),
    "vectors are of the index's encoder": ("frames", put(encoder_id="another")),
    "decode_coverage is a share": ("videos", put(decode_coverage=1.5)),
}


def test_a_right_index_has_no_findings(index: Index) -> None:
    audit = verify(index)
    assert audit.wrong == ()
    assert audit.notes == ()
    assert audit.n_rows["frames"] == 18


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_is_broken_by_its_break(rule: str, index: Index) -> None:
    edit(index, *BREAKS[rule])
    assert any(finding.startswith(f"{rule}: broken by") for finding in verify(index).wrong)


def test_a_video_id_that_is_not_of_its_uri_is_found(index: Index) -> None:
    edit(index, "videos", put(uri="file:///elsewhere.mp4"))
    assert any("video_id is the digest" in finding for finding in verify(index).wrong)


@pytest.mark.parametrize("vector", [[NAN] * DIM, [float("inf"), *[0.0] * (DIM - 1)], [0.0] * DIM, [2.0] * DIM])
def test_frame_vectors_are_finite_unit_vectors(vector: list[float], index: Index) -> None:
    edit(index, "frames", put(embedding=vector))
    assert [f for f in verify(index).wrong if "1 embeddings are not finite unit vectors, first in row 0" in f]


def test_means_may_be_shorter_but_not_longer_than_one(index: Index) -> None:
    edit(index, "clips", put(embedding=[0.01] * DIM))
    assert verify(index).wrong == ()
    edit(index, "segments", put(embedding=[1.0] * DIM))
    assert [f for f in verify(index).wrong if f.startswith("segments/") and "longer than 1" in f]


def damage(index: Index, table: str, change: Callable[[pa.Table], pa.Table]) -> str:
    (path,) = index.snapshot().paths(table)
    pq.write_table(change(index.read_file(path)), Path(index.url) / path)
    return path


def test_a_file_of_the_first_schema_is_read_and_not_complained_of(index: Index) -> None:
    def as_then(rows: pa.Table) -> pa.Table:
        metadata = {**rows.schema.metadata, b"schema_version": b"1"}
        return rows.drop_columns(["bytes_read"]).replace_schema_metadata(metadata)

    damage(index, "videos", as_then)
    assert verify(index).wrong == ()
    assert set(index.read("videos")["bytes_read"].to_pylist()) == {None}


def test_files_against_the_snapshot(index: Index) -> None:
    (clips,), (frames,) = index.snapshot().paths("clips"), index.snapshot().paths("frames")
    (Path(index.url) / clips).rename(Path(index.url) / "clips" / "copy.parquet")
    (Path(index.url) / frames).write_bytes(b"PAR1 and no more")
    wrong = verify(index).wrong
    assert f"{clips} is in the snapshot but not on storage" in wrong
    assert "clips/copy.parquet is on storage but not in the snapshot" in wrong
    assert any(f.startswith(f"{frames} is not readable Parquet") for f in wrong)


def test_row_counts_against_the_snapshot(index: Index) -> None:
    path = damage(index, "captions", lambda rows: rows.slice(1))
    assert f"{path} has 5 rows, the snapshot says 6" in verify(index).wrong


def test_schemas_of_files(index: Index) -> None:
    def null_typed(rows: pa.Table) -> pa.Table:
        at = rows.schema.get_field_index("error_class")
        return rows.set_column(at, "error_class", pa.nulls(len(rows)))

    def as_tensor(rows: pa.Table) -> pa.Table:
        at = rows.schema.get_field_index("embedding")
        kind = pa.fixed_shape_tensor(pa.float16(), (DIM,))
        flat = rows["embedding"].combine_chunks().flatten().cast(pa.float16())
        plain = pa.FixedSizeListArray.from_arrays(flat, DIM)
        return rows.set_column(at, "embedding", pa.ExtensionArray.from_storage(kind, plain))

    videos = damage(index, "videos", null_typed)
    clips = damage(index, "clips", as_tensor)
    captions = damage(index, "captions", lambda rows: rows.append_column("extra", pa.nulls(len(rows), pa.string())))
    answers = damage(index, "answers", lambda rows: rows.drop_columns(["answer"]))
    errors = damage(index, "errors", lambda rows: rows.replace_schema_metadata({"schema_version": "99"}))
    wrong = "\n".join(verify(index).wrong)
    assert f"{videos} column error_class is null, expected string" in wrong
    assert f"{clips} column embedding is extension" in wrong
    assert f"{captions} has a column extra that is not in the schema" in wrong
    assert f"{answers} lacks the columns answer" in wrong
    assert f"{errors} has schema version 99, expected 1 to {SCHEMA_VERSION}" in wrong


def test_open_work_is_noted_and_is_not_wrong(index: Index) -> None:
    stage(index.storage, "item-5", encode_item(item_rows(5)))
    with pytest.raises(Killed):
        commit(Index(tapped(index.url, killer(5, raise_killed))), ["item-5"], video_rows(5))
    audit = verify(index)
    assert audit.wrong == ()
    assert audit.notes == ("commit 2 is open: the next run finishes it", "1 staged items wait for the next run")


def test_the_job_verify(index: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert jobs.verify.main(["--index", index.url]) == 0
    assert "18 frames" in capsys.readouterr().out
    edit(index, "videos", put(status="done"))
    assert jobs.verify.main(["--index", index.url]) == 4
    assert "wrong: status is one of the six: broken by 1" in capsys.readouterr().err
    assert jobs.verify.main(["--index", str(tmp_path / "missing")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    empty = Index.create(str(tmp_path / "empty"))
    assert jobs.verify.main(["--index", empty.url]) == 2
    with pytest.raises(SystemExit) as exit_of:
        jobs.verify.main(["--indx", index.url])
    assert exit_of.value.code == 2


def test_the_job_status(index: Index, capsys: pytest.CaptureFixture[str]) -> None:
    stage(index.storage, "item-5", encode_item(item_rows(5)))
    assert jobs.status.main(["--index", index.url]) == 0
    out = capsys.readouterr().out
    assert "4 videos: 3 indexed, 1 failed, 1 deleted" in out
    assert "failures: 1 NoFrames" in out
    assert "1 staged items wait" in out
    assert "run run-1: index, 0 s, 4 listed" in out
    status = jobs.status.status_of(index, 5)
    assert status["videos"]["indexed"] == 3
    assert status["rows"]["frames"] == 18
    assert status["open_commit"] is None


def test_the_job_purge(index: Index, capsys: pytest.CaptureFixture[str]) -> None:
    assert jobs.purge.main(["--index", index.url, "--video", uri_of(1)]) == 2
    assert "1 of 5 videos" in capsys.readouterr().err
    with index_lock(index.storage):
        pass
    assert jobs.purge.main(["--index", index.url, "--video", uri_of(1), "--video", id_of(3), "--yes"]) == 0
    assert "purged 2 videos: 2 videos, 2 clips" in capsys.readouterr().out
    assert jobs.purge.main(["--index", index.url, "--deleted", "--yes"]) == 0
    assert index.read("videos")["video_id"].to_pylist() == sorted([id_of(0), id_of(2)])
    assert jobs.purge.main(["--index", index.url, "--deleted"]) == 0
    assert jobs.purge.main(["--index", index.url, "--video", "nobody"]) == 2
    assert verify(index).wrong == ()


def test_jobs_end_with_one_line_through_the_console_script(index: Index) -> None:
    repository = Path(__file__).resolve().parents[3]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "jobs", *arguments], cwd=repository, capture_output=True, text=True, check=False
        )

    assert run("verify", "--index", index.url).returncode == 0
    missing = run("verify", "--index", index.url + "x")
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    unknown = run("nonsense")
    assert unknown.returncode == 2
    assert "jobs: " in unknown.stderr
