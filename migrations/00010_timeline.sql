-- What the reading side needs beside the live views: the index of subjects, and indexes of what has ended.

-- +goose Up

-- Which events concern whom. Filled by the follower "timeline", so it costs an append nothing. Beside the subjects
-- of each event it holds the event's type as "type:session.ready".
CREATE TABLE event_subjects (
  subject  text COLLATE "C" NOT NULL,
  position bigint NOT NULL,
  PRIMARY KEY (subject, position)
);

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
DROP TABLE event_subjects;
