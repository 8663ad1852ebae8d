-- The tables of this index in DuckDB, with vectors as fixed-size arrays, and what is asked of them again and again.
--
--   duckdb -init views.sql                                   in the shell
--   duckdb.execute(open('views.sql').read())                 in Python
--   SET VARIABLE index_url = '/where/it/is/now';             first, when the index was moved or is mounted elsewhere
--
-- Written by jobs.index; a run writes it again when something in it changed.

-- Tables ------------------------------------------------------------------------------------------------------------

-- A view of each table: `videos` and what is of a video hold those that are in the archive; `all_videos`, `all_clips` and
-- so on hold also what is known of videos that are gone from it (status 'deleted', until jobs.purge). `path` is the
-- path below the root a video was listed under; `link` opens it at the moment (most players understand #t=seconds).
CREATE OR REPLACE MACRO moment(uri, at_s) AS
    replace(uri, '#', '%23') || '#t=' || rtrim(rtrim(format('{:.3f}', at_s::DOUBLE), '0'), '.');

CREATE OR REPLACE VIEW all_videos AS
SELECT * REPLACE (coalesce(path, name) AS path)
FROM (
    FROM @videos@
    UNION ALL BY NAME
    SELECT NULL::VARCHAR AS path, NULL::VARCHAR AS reason, NULL::VARCHAR AS content_run_id WHERE false
);
CREATE OR REPLACE VIEW videos AS FROM all_videos WHERE status <> 'deleted';

@content@

-- Shots: frame-accurate, where jobs.shots has looked (jobs.index --shots does so at the end of each run).
CREATE OR REPLACE VIEW all_shots AS
SELECT s.*, v.name, v.path, moment(v.uri, s.start_s) AS link FROM @shots@ s JOIN all_videos v USING (video_id);
CREATE OR REPLACE VIEW shots AS FROM all_shots WHERE video_id IN (SELECT video_id FROM videos);

CREATE OR REPLACE VIEW errors AS
SELECT e.*, coalesce(v.path, e.uri) AS path FROM @errors@ e LEFT JOIN all_videos v USING (video_id);
CREATE OR REPLACE VIEW runs AS SELECT * FROM @runs@;

-- Joins -------------------------------------------------------------------------------------------------------------

-- Segments by the name of their video, with their place in it and their neighbours; vectors and pictures left out.
CREATE OR REPLACE VIEW segments_in_context AS
SELECT
    v.name,
    s.* EXCLUDE (embedding, thumbnail),
    row_number() OVER in_video - 1 AS place,
    lag(s.segment_id) OVER in_video AS previous_segment_id,
    lead(s.segment_id) OVER in_video AS next_segment_id
FROM segments s JOIN videos v USING (video_id)
WINDOW in_video AS (PARTITION BY s.video_id ORDER BY s.start_s, s.segment_id);

-- Segments joined across the edges of clips: the next begins where a sampled frame is less like the one before it than
-- the encoder's own threshold for "the same segment", @tau_s@. These are no shots: a cut between two samples that look
-- alike is not seen, and a fast pan is taken for one.
CREATE OR REPLACE VIEW joined_segments AS
WITH numbered AS (
    SELECT
        *,
        sum(CASE WHEN boundary_score >= @tau_s@ THEN 0 ELSE 1 END)
            OVER (PARTITION BY video_id ORDER BY start_s, segment_id) - 1 AS joined_index
    FROM segments_in_context
)
SELECT
    video_id,
    name,
    path,
    uri,
    joined_index::INTEGER AS joined_index,
    min(start_s) AS start_s,
    max(end_s) AS end_s,
    sum(n_frames)::INTEGER AS n_frames,
    list(segment_id ORDER BY place) AS segment_ids,
    moment(uri, min(start_s)) AS link
FROM numbered
GROUP BY video_id, name, path, uri, joined_index;

-- What was said of each clip, by the name of the video.
CREATE OR REPLACE VIEW captioned AS
SELECT v.name, c.start_s, c.end_s, c.caption, c.prompt, c.clip_id, c.video_id, c.path, c.uri, c.link
FROM captions c JOIN videos v USING (video_id);

-- Answers, one row for each segment the model was shown, most relevant first (rank 0).
CREATE OR REPLACE VIEW evidence AS
SELECT
    v.name,
    a.question,
    a.answer,
    a.abstained,
    i - 1 AS rank,
    a.evidence[i].start_s AS start_s,
    a.evidence[i].end_s AS end_s,
    a.evidence[i].score AS score,
    a.evidence[i].segment_id AS segment_id,
    a.video_id,
    a.scope,
    a.path,
    a.uri,
    moment(a.uri, a.evidence[i].start_s) AS link
FROM answers a JOIN videos v USING (video_id), unnest(range(1, len(a.evidence) + 1)) AS t(i);

-- What each run changed, one row for a video and each thing that became of it: `kind` is new, changed, redone, deleted,
-- failed, pending, captioned or answered (the last two: of a video that was there); `detail` the error class, prompt or
-- question. What a later run did again is counted there alone.
CREATE OR REPLACE VIEW changes AS
WITH found AS (
    SELECT
        content_run_id AS run_id,
        CASE
            WHEN reason IN ('new', 'pending') THEN 'new'
            WHEN reason IN ('changed', 'returned') THEN 'changed'
            ELSE 'redone'
        END AS kind,
        NULL AS detail,
        video_id
    FROM all_videos WHERE status IN ('indexed', 'partial') AND content_run_id IS NOT NULL
    UNION ALL
    SELECT run_id, CASE WHEN status = 'quarantined' THEN 'failed' ELSE status END, error_class, video_id
    FROM all_videos WHERE status NOT IN ('indexed', 'partial')
    UNION ALL
    SELECT DISTINCT a.run_id, 'answered', a.question, a.video_id
    FROM answers a JOIN videos v USING (video_id) WHERE a.run_id IS DISTINCT FROM v.content_run_id
    UNION ALL
    SELECT DISTINCT c.run_id, 'captioned', c.prompt, c.video_id
    FROM captions c JOIN videos v USING (video_id) WHERE c.run_id IS DISTINCT FROM v.content_run_id
)
SELECT f.run_id, r.started_at, f.kind, v.path, f.detail, v.uri, v.video_id
FROM found f JOIN all_videos v USING (video_id) LEFT JOIN runs r ON r.run_id = f.run_id;

-- Search ------------------------------------------------------------------------------------------------------------

-- The `top` segments nearest to a unit query vector: FROM search([0.1, ...], 10). `jobs.search --print-vector "text"`
-- prints the vector of a text. The score is the paper's segment relevance (Eq. 3, averaged over the frames).
CREATE OR REPLACE MACRO search(query_vector, top) AS TABLE
SELECT
    v.name,
    s.start_s,
    s.end_s,
    array_inner_product(s.embedding, query_vector::FLOAT[@dim@]) AS score,
    s.segment_id,
    s.video_id,
    s.path,
    s.uri,
    s.link
FROM segments s JOIN videos v USING (video_id)
ORDER BY score DESC, segment_id
LIMIT top;

-- The `top` segments that look most like one of them: FROM similar_to('...-00000-02', 10).
CREATE OR REPLACE MACRO similar_to(wanted_segment_id, top) AS TABLE
SELECT
    v.name,
    s.start_s,
    s.end_s,
    array_cosine_similarity(s.embedding, q.embedding) AS score,
    s.segment_id,
    s.video_id,
    s.path,
    s.uri,
    s.link
FROM segments s, segments q, videos v
WHERE q.segment_id = wanted_segment_id AND s.segment_id <> wanted_segment_id AND v.video_id = s.video_id
ORDER BY score DESC, segment_id
LIMIT top;
