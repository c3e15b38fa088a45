-- +goose Up
-- The name of this installation: launchers mark what they start with it, so
-- that two services on one machine or cluster leave each other's resources alone.
CREATE TABLE installation (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    id  text NOT NULL
);
INSERT INTO installation (id) VALUES (replace(gen_random_uuid()::text, '-', ''));

-- +goose Down
DROP TABLE installation;
