-- What the reading side needs beside the live views: the index of subjects, and indexes of what has ended.

-- +goose Up

-- Which events concern whom. Filled by the follower "timeline", so it costs an append nothing. Beside the subjects
-- of each event it holds the event's type as "type:session.ready". A row holds the positions, in order, of one run of
-- the follower: hundreds of an owner or a renderer, so that there are six times fewer rows than with one for each.
CREATE TABLE event_subjects (
  subject   text COLLATE "C" NOT NULL,
  first     bigint NOT NULL,
  positions bigint[] NOT NULL,
  PRIMARY KEY (subject, first)
);

-- rrm_subject_positions walks the index in order and stops when it has enough: a subject may have a million events.
-- With p_type only events of that type count, with p_prefix of all types that begin so.
-- +goose StatementBegin
CREATE FUNCTION rrm_subject_positions(p_subject text, p_after bigint, p_upto bigint, p_limit int, p_type text, p_prefix boolean)
RETURNS SETOF bigint LANGUAGE plpgsql STABLE
ROWS 100
SET enable_bitmapscan = off SET enable_seqscan = off SET enable_sort = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
DECLARE
  run bigint[];
  found int := 0; n int;
BEGIN
  FOR run IN SELECT positions FROM event_subjects WHERE subject = p_subject AND first <= p_upto AND first >=
      coalesce((SELECT max(first) FROM event_subjects WHERE subject = p_subject AND first <= p_after), 0) ORDER BY first LOOP
    IF p_type = '' THEN
      RETURN QUERY SELECT p FROM unnest(run) AS p WHERE p > p_after AND p <= p_upto LIMIT p_limit - found;
    ELSE
      RETURN QUERY SELECT p FROM unnest(run) AS p JOIN events e ON e.position = p
        WHERE p > p_after AND p <= p_upto AND (e.type = p_type OR p_prefix AND starts_with(e.type, p_type)) LIMIT p_limit - found;
    END IF;
    GET DIAGNOSTICS n = ROW_COUNT;
    found := found + n;
    EXIT WHEN found >= p_limit;
  END LOOP;
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
