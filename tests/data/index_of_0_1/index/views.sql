-- The tables of this index in DuckDB, with vectors as fixed-size arrays, and what is asked of them again and again.
--
--   duckdb -init views.sql                                   in the shell
--   duckdb.execute(open('views.sql').read())                 in Python
--   SET VARIABLE index_url = '/where/it/is/now';             first, when the index was moved or is mounted elsewhere
--
-- Written by jobs.index; a run writes it again when something in it changed.

-- Tables ------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE VIEW videos AS SELECT * FROM read_parquet(coalesce(getvariable('index_url'), '/tmp/idx/data/index') || '/videos/*.parquet', union_by_name => true);
CREATE OR REPLACE VIEW clips AS SELECT * REPLACE (embedding::FLOAT[128] AS embedding) FROM read_parquet(coalesce(getvariable('index_url'), '/tmp/idx/data/index') || '/clips/*.parquet', union_by_name => true);
CREATE OR REPLACE VIEW segments AS SELECT * REPLACE (embedding::FLOAT[128] AS embedding) FROM read_parquet(coalesce(getvariable('index_url'), '/tmp/idx/data/index') || '/segments/*.parquet', union_by_name => true);
CREATE OR REPLACE VIEW frames AS SELECT * REPLACE (embedding::FLOAT[128] AS embedding) FROM read_parquet(coalesce(getvariable('index_url'), '/tmp/idx/data/index') || '/frames/*.parquet', union_by_name => true);
CREATE OR REPLACE VIEW captions AS SELECT * FROM read_parquet(coalesce(getvariable('index_url'), '/tmp/idx/data/index') || '/captions/*.parquet', union_by_name => true);
CREATE OR REPLACE VIEW answers AS SELECT * FROM read_parquet(coalesce(getvariable('index_url'), '/tmp/idx/data/index') || '/answers/*.parquet', union_by_name => true);
CREATE OR REPLACE VIEW errors AS SELECT * FROM read_parquet(coalesce(getvariable('index_url'), '/tmp/idx/data/index') || '/errors/*.parquet', union_by_name => true);
CREATE OR REPLACE VIEW runs AS SELECT * FROM read_parquet(coalesce(getvariable('index_url'), '/tmp/idx/data/index') || '/runs/*.parquet', union_by_name => true);

-- Joins -------------------------------------------------------------------------------------------------------------

-- Segments by the name of their video, with their place in it and their neighbours; vectors and pictures left out.
CREATE OR REPLACE VIEW segments_in_context AS
SELECT
    v.name,
    v.uri,
    s.* EXCLUDE (embedding, thumbnail),
    row_number() OVER in_video - 1 AS place,
    lag(s.segment_id) OVER in_video AS previous_segment_id,
    lead(s.segment_id) OVER in_video AS next_segment_id
FROM segments s JOIN videos v USING (video_id)
WINDOW in_video AS (PARTITION BY s.video_id ORDER BY s.start_s, s.segment_id);

-- Shots: segments joined across the edges of clips. A shot begins where a frame is less like the frame before it than
-- the encoder's own threshold for "the same segment", 0.9923.
CREATE OR REPLACE VIEW shots AS
WITH numbered AS (
    SELECT
        *,
        sum(CASE WHEN boundary_score >= 0.9923 THEN 0 ELSE 1 END)
            OVER (PARTITION BY video_id ORDER BY start_s, segment_id) - 1 AS shot_index
    FROM segments_in_context
)
SELECT
    video_id,
    name,
    shot_index::INTEGER AS shot_index,
    min(start_s) AS start_s,
    max(end_s) AS end_s,
    sum(n_frames)::INTEGER AS n_frames,
    list(segment_id ORDER BY place) AS segment_ids
FROM numbered
GROUP BY video_id, name, shot_index;

-- What was said of each clip, by the name of the video.
CREATE OR REPLACE VIEW captioned AS
SELECT v.name, c.start_s, c.end_s, c.caption, c.prompt, c.clip_id, c.video_id
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
    a.scope
FROM answers a JOIN videos v USING (video_id), unnest(range(1, len(a.evidence) + 1)) AS t(i);

-- Search ------------------------------------------------------------------------------------------------------------

-- The `top` segments nearest to a unit query vector: FROM search([0.1, ...], 10). `jobs.search --print-vector "text"`
-- prints the vector of a text. The score is the paper's segment relevance (Eq. 3, averaged over the frames).
CREATE OR REPLACE MACRO search(query_vector, top) AS TABLE
SELECT
    v.name,
    s.start_s,
    s.end_s,
    array_inner_product(s.embedding, query_vector::FLOAT[128]) AS score,
    s.segment_id,
    s.video_id
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
    s.video_id
FROM segments s, segments q, videos v
WHERE q.segment_id = wanted_segment_id AND s.segment_id <> wanted_segment_id AND v.video_id = s.video_id
ORDER BY score DESC, segment_id
LIMIT top;
