-- +goose Up
-- Who asked to be told of the end of a job. Filled by a follower, once for each
-- job; delivered at least once, with bounded attempts.
CREATE TABLE callbacks (
    job_id     text PRIMARY KEY,
    url        text NOT NULL,
    body       jsonb NOT NULL,
    attempts   int NOT NULL DEFAULT 0,
    next_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    done_at    timestamptz,
    last_error text NOT NULL DEFAULT ''
);
CREATE INDEX callbacks_due ON callbacks (next_at) WHERE done_at IS NULL;

-- +goose Down
DROP TABLE callbacks;
