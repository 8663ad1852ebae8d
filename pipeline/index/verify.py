"""The audit: everything the tables promise, looked up again from the files themselves.

Rules about rows are SQL that finds what breaks them; rules about files and vectors are read file by file, so that the
largest tables never lie in memory at once. A finding names the rule, how many rows break it, and the first few.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from pipeline.errors import UsageError
from pipeline.index import staging
from pipeline.index.commit_plan import open_commit
from pipeline.index.snapshot import Index, Snapshot, schema_of
from pipeline.index.tables import COMMITTED_TABLES, CONTENT_TABLES, SCHEMA_VERSION, TABLES, VECTOR_TABLES
from pipeline.types import STATUSES, video_id_of

_EXAMPLES = 3
_UNIT_TOLERANCE = 0.01  # float16 rounding of a unit vector of width 1152 stays below 1e-3; means are shorter
_TRIES = 5


@dataclass(frozen=True)
class Audit:
    """`wrong`: what breaks a rule. `notes`: open work that the next run finishes by itself."""

    n_rows: dict[str, int]
    wrong: tuple[str, ...]
    notes: tuple[str, ...]


def verify(index: Index) -> Audit:
    """Check every rule on one snapshot; again when a live run commits meanwhile."""
    for _ in range(_TRIES):
        snapshot = index.snapshot()
        try:
            audit = _verify_at(index, snapshot)
        except (OSError, UsageError, pa.ArrowException, duckdb.Error) as error:
            if index.snapshot() != snapshot:
                continue
            if isinstance(error, UsageError) and "_state/" in str(error):
                raise
            audit = Audit(
                dict.fromkeys(COMMITTED_TABLES, 0), (f"tables cannot be read: {str(error).splitlines()[0]}",), ()
            )
        if index.snapshot() == snapshot:
            return audit
    raise UsageError(f"{index.url} is being written to faster than it can be read; try again when the run has ended")


def _verify_at(index: Index, snapshot: Snapshot) -> Audit:
    pending = open_commit(index, snapshot)
    notes = [f"commit {pending.commit} is open: the next run finishes it"] if pending else []
    staged = staging.staged_keys(index.storage)
    if staged:
        notes.append(f"{len(staged)} staged items wait for the next run")
    wrong = list(_check_files(index, snapshot, may_be_open=pending is not None))
    if not wrong:  # rows are read only from files that are what they should be
        wrong += [*_check_vectors(index, snapshot), *_check_rows(index, snapshot)]
    return Audit({table: snapshot.n_rows(table) for table in COMMITTED_TABLES}, tuple(wrong), tuple(notes))


def _check_files(index: Index, snapshot: Snapshot, may_be_open: bool) -> Iterator[str]:
    """The files of the snapshot are there, whole, of the right schema; and no others lie beside them."""
    for table in TABLES:
        found = {name for name in index.storage.list(table) if name.endswith(".parquet")}  # what a glob would read
        named = snapshot.files.get(table, {}) if table != "runs" else dict.fromkeys(found, None)
        yield from (f"{table}/{name} is in the snapshot but not on storage" for name in sorted(named.keys() - found))
        if not may_be_open:
            yield from (
                f"{table}/{name} is on storage but not in the snapshot" for name in sorted(found - named.keys())
            )
        for name in sorted(named.keys() & found):
            yield from (f"{table}/{name} {what}" for what in _check_file(index, snapshot, table, name, named[name]))


def _check_file(index: Index, snapshot: Snapshot, table: str, name: str, n_rows: int | None) -> Iterator[str]:
    try:
        footer = index.footer(f"{table}/{name}")
        schema, found_rows = footer.schema.to_arrow_schema(), footer.num_rows
    except (UsageError, pa.ArrowException, OSError) as error:
        yield f"is not readable Parquet: {error}"
        return
    if n_rows is not None and found_rows != n_rows:
        yield f"has {found_rows} rows, the snapshot says {n_rows}"
    version = int((schema.metadata or {}).get(b"schema_version", b"0"))
    if not 1 <= version <= SCHEMA_VERSION:
        yield f"has schema version {version}, expected 1 to {SCHEMA_VERSION}"
    expected = schema_of(snapshot, table)
    for column in schema:
        if column.name not in expected.names:
            yield f"has a column {column.name} that is not in the schema"
        elif column.type != expected.field(column.name).type:  # a null or an extension type shows here too
            yield f"column {column.name} is {column.type}, expected {expected.field(column.name).type}"
    missing = [column for column in expected.names if column not in schema.names]
    if missing and version == SCHEMA_VERSION:
        yield f"lacks the columns {', '.join(missing)}"


def _check_vectors(index: Index, snapshot: Snapshot) -> Iterator[str]:
    """Embeddings are there, finite, and no longer than a unit vector; those of frames are unit vectors."""
    for table in VECTOR_TABLES:
        for path in snapshot.paths(table):
            column = index.read_file(path, ["embedding"])["embedding"].combine_chunks()
            if column.null_count:
                yield f"{path}: {column.null_count} embeddings are null"
            vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)
            lengths = np.linalg.norm(vectors.astype(np.float32), axis=1)  # (rows,); not finite when a value is not
            bad = ~(lengths <= 1 + _UNIT_TOLERANCE)
            if table == "frames":
                bad |= ~(lengths >= 1 - _UNIT_TOLERANCE)
            if bad.any():
                rule = "are not finite unit vectors" if table == "frames" else "are not finite or longer than 1"
                yield f"{path}: {int(bad.sum())} embeddings {rule}, first in row {int(bad.argmax())}"


def _check_rows(index: Index, snapshot: Snapshot) -> Iterator[str]:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    for table in TABLES:
        connection.register(table, _without_vectors(index, snapshot, table))
    encoder_id = snapshot.encoder.encoder_id if snapshot.encoder else None
    connection.register("snapshot", pa.table({"encoder_id": pa.array([encoder_id], pa.string())}))
    ids = index.read_at(snapshot, "videos", ["video_id", "uri"])
    strange = [
        i for i, uri in zip(*(ids[c].to_pylist() for c in ids.column_names), strict=True) if i != video_id_of(uri)
    ]
    if strange:
        yield _finding("video_id is the digest of the uri", len(strange), strange[:_EXAMPLES])
    for rule, query in RULES.items():
        connection.execute(f"CREATE OR REPLACE TEMP TABLE broken AS {query}")
        (count,) = connection.execute("SELECT count(*) FROM broken").fetchone() or (0,)
        if count:
            examples = connection.execute(f"SELECT * FROM broken ORDER BY ALL LIMIT {_EXAMPLES}").fetchall()
            yield _finding(rule, count, [" ".join(map(str, row)) for row in examples])


def _without_vectors(index: Index, snapshot: Snapshot, table: str) -> object:
    """A dataset DuckDB can scan; float16 vectors and thumbnails are left out."""
    schema = pa.schema([f for f in schema_of(snapshot, table) if f.name not in ("embedding", "thumbnail")])
    paths = index.run_paths() if table == "runs" else snapshot.paths(table)
    if not paths:
        return schema.empty_table()
    return index.dataset(paths, schema)


def _finding(rule: str, count: int, examples: list[str]) -> str:
    return f"{rule}: broken by {count}, e.g. {'; '.join(examples)}"


def _union(columns: str, having: str) -> str:
    """`columns` of all tables of content that have the column `having`, with their names as `t`."""
    found = (t for t in CONTENT_TABLES if having in TABLES[t].names)
    return " UNION ALL ".join(f"SELECT '{t}' AS t, {columns} FROM {t} WHERE {having} IS NOT NULL" for t in found)


_CONTENT = _union("video_id", "video_id")
_OF_VERSIONS = _union("video_id, video_version", "video_version")
_OF_CLIPS = _union("clip_id, video_id", "clip_id")
_WANTED = """
    SELECT video_id, status, n_clips, string_split(unnest(fingerprints).stage, ':') AS stage FROM videos
    WHERE status = 'indexed'
"""

_KEYS = {
    f"{table.name} have one row for each {', '.join(table.key)}": f"""
        SELECT {", ".join(table.key)} FROM {table.name} GROUP BY ALL HAVING count(*) > 1"""
    for table in TABLES.values()
    if table.key
}

RULES = {
    **_KEYS,
    "a uri has one row": "SELECT uri FROM videos GROUP BY uri HAVING count(*) > 1",
    "status is one of the six": f"SELECT video_id, status FROM videos WHERE status NOT IN {STATUSES}",
    "what is not indexed says why, what is indexed does not": """
        SELECT video_id, status, error_class FROM videos
        WHERE (status = 'indexed' AND error_class IS NOT NULL)
           OR (status IN ('failed', 'quarantined') AND error_class IS NULL)""",
    "the last run counted the videos that are there": """
        WITH last AS (SELECT counts FROM runs WHERE counts IS NOT NULL ORDER BY finished_at DESC, run_id DESC LIMIT 1),
             said AS (UNPIVOT (SELECT unnest(counts) FROM last) ON COLUMNS(*) INTO NAME status VALUE n),
             found AS (SELECT status, count(*) AS n FROM videos GROUP BY status)
        SELECT status, coalesce(said.n, 0) AS said, coalesce(found.n, 0) AS found
        FROM said FULL JOIN found USING (status)
        WHERE EXISTS (FROM last) AND coalesce(said.n, 0) <> coalesce(found.n, 0)""",
    "the shots of a video follow each other from its first frame on": """
        SELECT video_id, shot_index, start_s FROM (
            SELECT *, lag(end_s) OVER w AS before_s, lag(end_frame) OVER w AS before_frame,
                row_number() OVER w - 1 AS place
            FROM shots WINDOW w AS (PARTITION BY video_id ORDER BY shot_index)
        )
        WHERE shot_index <> place OR start_s >= end_s OR start_frame >= end_frame
           OR start_s <> coalesce(before_s, 0) OR start_frame <> coalesce(before_frame, 0)
           OR kind <> CASE WHEN place = 0 THEN 'start' ELSE 'cut' END""",
    "rows belong to a listed video": f"""
        SELECT t, video_id, count(*) AS n FROM ({_CONTENT}) ANTI JOIN videos USING (video_id) GROUP BY ALL""",
    "rows are of the version the ledger names": f"""
        SELECT t, video_id, video_version, version FROM ({_OF_VERSIONS}) JOIN videos USING (video_id)
        WHERE video_version <> version AND status IN ('indexed', 'partial') GROUP BY ALL""",
    "rows of clips belong to a clip": f"""
        SELECT t, clip_id, count(*) AS n FROM ({_OF_CLIPS}) ANTI JOIN clips USING (clip_id, video_id) GROUP BY ALL""",
    "an indexed video has all its clips, others no more than planned": """
        SELECT video_id, status, n_clips, coalesce(n, 0) AS found
        FROM videos LEFT JOIN (SELECT video_id, count(*) AS n FROM clips GROUP BY video_id) USING (video_id)
        WHERE (status = 'indexed' AND (n_clips IS NULL OR n_clips <> coalesce(n, 0)))
           OR (status IN ('indexed', 'partial') AND coalesce(n, 0) > coalesce(n_clips, 0))""",
    "clip_index counts within n_clips, and clip_id follows it": """
        SELECT clip_id, clip_index, n_clips FROM clips JOIN videos USING (video_id)
        WHERE clip_index < 0 OR (clip_index >= n_clips AND video_version = version)
           OR clip_id <> format('{}-{:05d}', video_id, clip_index)""",
    "every clip of an indexed video has the captions its fingerprints name": f"""
        SELECT w.video_id, w.stage[2] AS prompt_id, w.n_clips, count(c.clip_id) AS found
        FROM ({_WANTED}) w LEFT JOIN captions c ON c.video_id = w.video_id AND c.prompt_id = w.stage[2]
        WHERE w.stage[1] = 'caption' GROUP BY ALL HAVING count(c.clip_id) <> w.n_clips""",
    "an indexed video has the answers its fingerprints name": f"""
        SELECT w.video_id, w.stage[2] AS question_id, w.stage[3] AS scope, count(a.video_id) AS found
        FROM ({_WANTED}) w LEFT JOIN answers a
          ON a.video_id = w.video_id AND a.question_id = w.stage[2] AND a.scope = w.stage[3]
        WHERE w.stage[1] = 'answer' GROUP BY w.video_id, w.stage, w.n_clips
        HAVING count(a.video_id) <> CASE w.stage[3] WHEN 'clip' THEN w.n_clips ELSE 1 END""",
    "an answer names its clip exactly when a clip was asked": """
        SELECT video_id, question_id, scope, clip_id FROM answers
        WHERE scope NOT IN ('video', 'clip') OR (scope = 'clip') <> (clip_id IS NOT NULL)""",
    "an answer abstained below the threshold it records": """
        SELECT video_id, question_id, relevance, abstain_below FROM answers
        WHERE abstained AND relevance >= abstain_below""",
    "n_segments and n_frames of a clip are those of its segments": """
        SELECT c.clip_id, n_segments, coalesce(n, 0) AS segments, n_frames, coalesce(frames, 0) AS frames
        FROM clips c LEFT JOIN (
            SELECT clip_id, count(*) AS n, sum(n_frames) AS frames FROM segments GROUP BY clip_id) s USING (clip_id)
        WHERE n_segments <> coalesce(n, 0) OR c.n_frames <> coalesce(s.frames, 0)""",
    "a clip has all its frames or, where frames are left out, none": """
        SELECT c.clip_id, n_frames, f.n FROM clips c JOIN (
            SELECT clip_id, count(*) AS n FROM frames GROUP BY clip_id) f USING (clip_id)
        WHERE f.n <> n_frames""",
    "a clip knows the time of each of its frames": """
        SELECT clip_id, n_frames, len(frame_pts_s) AS times FROM clips
        WHERE len(frame_pts_s) <> n_frames OR frame_pts_s <> list_sort(frame_pts_s)""",
    "frames have the times their clip says": """
        SELECT f.clip_id, frame_index, pts_s FROM frames f JOIN clips c USING (clip_id)
        WHERE pts_s IS DISTINCT FROM frame_pts_s[frame_index + 1]""",
    "frames lie in a segment of their clip": """
        SELECT f.clip_id, frame_index, f.segment_index FROM frames f
        ANTI JOIN segments s ON s.clip_id = f.clip_id AND s.segment_index = f.segment_index""",
    "a segment holds the frames it counts": """
        SELECT segment_id, s.n_frames, f.n FROM segments s JOIN (
            SELECT clip_id, segment_index, count(*) AS n FROM frames GROUP BY ALL) f USING (clip_id, segment_index)
        WHERE f.n <> s.n_frames""",
    "clips lie in their video and do not overlap": """
        SELECT clip_id, start_s, end_s, duration_s FROM (
            SELECT *, lead(start_s) OVER (PARTITION BY video_id ORDER BY clip_index) AS next_s FROM clips)
        JOIN videos USING (video_id)
        WHERE NOT (start_s >= 0 AND start_s < end_s AND end_s <= coalesce(next_s, end_s) + 1e-6
                   AND (end_s <= coalesce(duration_s, end_s) + 1e-6 OR video_version <> version))""",
    "frame times lie in their video, before the end of their clip": """
        SELECT clip_id, frame_pts_s, end_s FROM clips
        WHERE n_frames > 0 AND NOT (list_min(frame_pts_s) >= 0 AND list_max(frame_pts_s) < end_s + 1e-6)""",
    "segments tile their clip": """
        SELECT segment_id, s.start_s, s.end_s, clip_start_s, clip_end_s FROM (
            SELECT s.*, c.start_s AS clip_start_s, c.end_s AS clip_end_s,
                   lag(s.end_s) OVER (PARTITION BY clip_id ORDER BY segment_index) AS before_s,
                   lead(s.start_s) OVER (PARTITION BY clip_id ORDER BY segment_index) AS after_s
            FROM segments s JOIN clips c USING (clip_id)) s
        WHERE NOT (start_s <= end_s AND abs(start_s - coalesce(before_s, clip_start_s)) <= 1e-6
                   AND abs(end_s - coalesce(after_s, clip_end_s)) <= 1e-6)""",
    "a segment begins with its first frame and holds its best": """
        SELECT segment_id, s.start_s, s.end_s, best_frame_s, first_s FROM segments s JOIN (
            SELECT clip_id, segment_index, min(pts_s) AS first_s, max(pts_s) AS last_s, list(pts_s) AS times
            FROM frames GROUP BY ALL) f USING (clip_id, segment_index)
        WHERE NOT (first_s >= s.start_s - 1e-6 AND last_s <= s.end_s + 1e-6
                   AND (s.segment_index = 0 OR first_s <= s.start_s + 1e-6)
                   AND (best_frame_s IS NULL OR list_contains(times, best_frame_s)))""",
    "captions and answers carry the times of their clip": """
        SELECT t, clip_id, x.start_s, x.end_s FROM (
            SELECT 'captions' AS t, clip_id, start_s, end_s FROM captions UNION ALL
            SELECT 'answers', clip_id, start_s, end_s FROM answers WHERE clip_id IS NOT NULL) x
        JOIN clips c USING (clip_id) WHERE x.start_s <> c.start_s OR x.end_s <> c.end_s""",
    "rows carry the uri of their video": f"""
        SELECT t, video_id, x.uri FROM ({_union("video_id, uri", "uri")}) x JOIN videos v USING (video_id)
        WHERE x.uri <> v.uri""",
    "only the first segment of a video has no boundary score": """
        SELECT segment_id, boundary_score FROM segments JOIN clips USING (clip_id)
        WHERE boundary_score IS NULL AND (clip_index > 0 OR segment_index > 0) OR NOT isfinite(boundary_score)""",
    "vectors are of the index's encoder": f"""
        SELECT t, e.encoder_id, count(*) AS n FROM ({_union("encoder_id", "encoder_id")}) e, snapshot
        WHERE e.encoder_id IS DISTINCT FROM snapshot.encoder_id GROUP BY ALL""",
    "decode_coverage is a share": """
        SELECT video_id, decode_coverage FROM videos WHERE NOT (decode_coverage BETWEEN 0 AND 1 + 1e-9)""",
}
"""Rule -> the query that finds what breaks it."""
