-- What the reading side needs beside the live views: the index of subjects, and indexes of what has ended.

-- +goose Up

-- Which events concern whom. Filled by the follower "timeline", so it costs an append nothing. Beside the subjects
-- of each event it holds the event's type as "type:session.ready".
CREATE TABLE event_subjects (
  subject  text COLLATE "C" NOT NULL,
  position bigint NOT NULL,
  PRIMARY KEY (subject, position)
);

-- rrm_subject_positions walks the index in order. It is a function for its settings only: the planner does not know
-- how many events a subject has, and would collect and sort a million of them for the first hundred.
-- With p_type only events of that type count, with p_prefix of all types that begin so.
-- +goose StatementBegin
CREATE FUNCTION rrm_subject_positions(p_subject text, p_after bigint, p_upto bigint, p_limit int, p_type text, p_prefix boolean)
RETURNS SETOF bigint LANGUAGE plpgsql STABLE
ROWS 100
SET enable_bitmapscan = off SET enable_seqscan = off SET enable_sort = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
BEGIN
  IF p_type = '' THEN
    RETURN QUERY SELECT s.position FROM event_subjects s
      WHERE s.subject = p_subject AND s.position > p_after AND s.position <= p_upto ORDER BY s.position LIMIT p_limit;
  ELSE
    RETURN QUERY SELECT s.position FROM event_subjects s JOIN events e ON e.position = s.position
      WHERE s.subject = p_subject AND s.position > p_after AND s.position <= p_upto
        AND (e.type = p_type OR p_prefix AND starts_with(e.type, p_type))
      ORDER BY s.position LIMIT p_limit;
  END IF;
END $$;
-- +goose StatementEnd

-- Lists by state, model or resource. What has not ended is few and is found by the indexes of 00001; what has ended
-- is much and is written once, so these cost one entry in a thing's whole life.
CREATE INDEX sessions_ended_state    ON sessions  (state, seq)    WHERE ended;
CREATE INDEX sessions_ended_model    ON sessions  (model, seq)    WHERE ended;
CREATE INDEX sessions_ended_resource ON sessions  (resource, seq) WHERE ended;
CREATE INDEX jobs_ended_state        ON jobs      (state, seq)    WHERE ended;
CREATE INDEX jobs_ended_model        ON jobs      (model, seq)    WHERE ended;
CREATE INDEX resources_ended_state   ON resources (state, seq)    WHERE ended;

-- Who is storing a result at present: a later attempt takes over from one that hangs.
ALTER TABLE result_meta ADD COLUMN attempt text NOT NULL DEFAULT '';
CREATE INDEX result_meta_created ON result_meta (created_at);

-- +goose Down
DROP INDEX result_meta_created;
ALTER TABLE result_meta DROP COLUMN attempt;
DROP INDEX resources_ended_state, jobs_ended_model, jobs_ended_state, sessions_ended_resource, sessions_ended_model, sessions_ended_state;
DROP FUNCTION rrm_subject_positions;
DROP TABLE event_subjects;
