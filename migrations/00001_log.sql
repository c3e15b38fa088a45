-- The log, its live views, and what is kept beside them.
-- The one way to write events, answers and live views is rrm_append, at the end.

-- +goose Up

-- The sequencer: one row, whose lock orders all appends. epoch fences calls whose outcome nobody knows.
CREATE TABLE log_head (
  one      boolean PRIMARY KEY DEFAULT true CHECK (one),
  position bigint NOT NULL DEFAULT 0 CHECK (position >= 0),
  epoch    bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
INSERT INTO log_head DEFAULT VALUES;

-- Positions are gapless and in the order of commits, because they are given out under the lock of log_head.
-- The index of subjects is a follower's table: a GIN index here cost an append a fifth, and pauses of 50 ms.
CREATE TABLE events (
  position    bigint      NOT NULL,
  stream      text        COLLATE "C" NOT NULL,
  version     bigint      NOT NULL CHECK (version > 0),
  type        text        COLLATE "C" NOT NULL,
  schema      int         NOT NULL DEFAULT 1,
  data        jsonb       NOT NULL,
  meta        jsonb       NOT NULL,
  subjects    text[]      COLLATE "C" NOT NULL DEFAULT '{}',
  recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (position)
) PARTITION BY RANGE (position);
CREATE INDEX events_recorded ON events USING brin (recorded_at) WITH (pages_per_range = 16);

-- +goose StatementBegin
CREATE FUNCTION rrm_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the log is append-only: % of % is refused', TG_OP, TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$;
-- +goose StatementEnd
CREATE TRIGGER events_frozen BEFORE UPDATE OR DELETE ON events FOR EACH ROW EXECUTE FUNCTION rrm_refuse_change();
CREATE TRIGGER events_kept BEFORE TRUNCATE ON events FOR EACH STATEMENT EXECUTE FUNCTION rrm_refuse_change();

-- rrm_ensure_partition makes the partitions that hold positions up to p_upto; it returns how many it made. A
-- partition holds 50 million positions. It is made beside the log and then attached, which blocks neither readers nor appends.
-- A unique index cannot span partitions, so (stream, version) is unique in each: an alarm, the sequencer is the guard.
-- +goose StatementBegin
CREATE FUNCTION rrm_ensure_partition(p_upto bigint) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  size CONSTANT bigint := 50000000;
  part text;
  made int := 0;
BEGIN
  IF to_regclass('events_p' || (p_upto - 1) / size) IS NOT NULL THEN RETURN 0; END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('rrm_ensure_partition', 0));
  FOR k IN REVERSE (p_upto - 1) / size .. 0 LOOP
    part := 'events_p' || k;
    EXIT WHEN to_regclass(part) IS NOT NULL;
    EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING ALL)', part);
    EXECUTE format('ALTER TABLE %I ADD CONSTRAINT %I UNIQUE (stream, version)', part, part || '_stream');
    EXECUTE format('CREATE TRIGGER events_kept BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION rrm_refuse_change()', part);
    EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', part, k * size + 1, (k + 1) * size + 1);
    made := made + 1;
  END LOOP;
  RETURN made;
END $$;
-- +goose StatementEnd
SELECT rrm_ensure_partition(1);

-- The answer of each command, refusals too. Type json, not jsonb: a repeated command gets the same bytes again.
CREATE TABLE answers (
  command_id  text COLLATE "C" PRIMARY KEY,
  hash        text NOT NULL,
  answer      json NOT NULL,
  position    bigint NOT NULL,
  recorded_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX answers_recorded ON answers (recorded_at);

-- How far each follower is. A follower that cannot apply an event is paused, it never skips.
CREATE TABLE checkpoints (
  follower   text   NOT NULL,
  generation int    NOT NULL DEFAULT 1,
  position   bigint NOT NULL DEFAULT 0,
  status     text   NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'paused', 'retired')),
  reason     text   NOT NULL DEFAULT '',
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (follower, generation)
) WITH (fillfactor = 50);

-- Observations are not events: current values of leases, heartbeats and progress, written often and folded from nothing.
CREATE TABLE liveness (
  kind          text COLLATE "C" NOT NULL,
  id            text COLLATE "C" NOT NULL,
  expires_at    timestamptz,
  lease_seconds double precision CHECK (lease_seconds > 0),
  claimed       boolean NOT NULL DEFAULT false,
  progress      double precision,
  detail        jsonb NOT NULL DEFAULT '{}',
  updated_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (kind, id),
  CONSTRAINT liveness_lease_has_an_end CHECK (kind <> 'session' OR (expires_at IS NOT NULL AND lease_seconds IS NOT NULL))
) WITH (fillfactor = 50);
-- Partial, so that no plan made while the table was small can take it for a way to single rows.
CREATE INDEX liveness_expires ON liveness (kind, expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE tokens (
  id           text PRIMARY KEY,
  owner        text NOT NULL,
  role         text NOT NULL CHECK (role IN ('client', 'operator', 'auditor')),
  hash         bytea NOT NULL UNIQUE,
  created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  last_used_at timestamptz,
  revoked_at   timestamptz
);

CREATE TABLE results (
  job_id text COLLATE "C" NOT NULL,
  seq    int NOT NULL,
  bytes  bytea NOT NULL,
  PRIMARY KEY (job_id, seq)
);
ALTER TABLE results ALTER COLUMN bytes SET STORAGE EXTERNAL; -- pictures and videos do not compress again
CREATE TABLE result_meta (
  job_id       text COLLATE "C" PRIMARY KEY,
  content_type text NOT NULL,
  bytes        bigint NOT NULL DEFAULT 0,
  complete     boolean NOT NULL DEFAULT false,
  created_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The live views: the folded state, each row with the position that wrote it. Rows are never deleted, since a
-- process that catches up could not see it. Columns beside id, body and position are taken from the body
-- for queries; seq is the position of the thing's first event, the order of lists.
CREATE TABLE service (
  id text COLLATE "C" PRIMARY KEY, body jsonb NOT NULL, position bigint NOT NULL
) WITH (fillfactor = 70);
CREATE TABLE pools (
  id text COLLATE "C" PRIMARY KEY, body jsonb NOT NULL, position bigint NOT NULL,
  seq bigint GENERATED ALWAYS AS ((body->>'seq')::bigint) STORED
) WITH (fillfactor = 70);
CREATE TABLE resources (
  id text COLLATE "C" PRIMARY KEY, body jsonb NOT NULL, position bigint NOT NULL,
  seq      bigint GENERATED ALWAYS AS ((body->>'seq')::bigint) STORED,
  renderer text COLLATE "C" GENERATED ALWAYS AS (body->>'renderer') STORED,
  state    text COLLATE "C" GENERATED ALWAYS AS (body->>'state') STORED,
  ended    boolean NOT NULL GENERATED ALWAYS AS (coalesce((body->>'ended')::boolean, false)) STORED
) WITH (fillfactor = 70);
CREATE TABLE sessions (
  id text COLLATE "C" PRIMARY KEY, body jsonb NOT NULL, position bigint NOT NULL,
  seq      bigint GENERATED ALWAYS AS ((body->>'seq')::bigint) STORED,
  renderer text COLLATE "C" GENERATED ALWAYS AS (body->>'renderer') STORED,
  owner    text COLLATE "C" GENERATED ALWAYS AS (body->>'owner') STORED,
  model    text COLLATE "C" GENERATED ALWAYS AS (body->>'model') STORED,
  state    text COLLATE "C" GENERATED ALWAYS AS (body->>'state') STORED,
  resource text COLLATE "C" GENERATED ALWAYS AS (body->>'resource') STORED,
  ended    boolean NOT NULL GENERATED ALWAYS AS (coalesce((body->>'ended')::boolean, false)) STORED
) WITH (fillfactor = 70);
CREATE TABLE jobs (
  id text COLLATE "C" PRIMARY KEY, body jsonb NOT NULL, position bigint NOT NULL,
  seq      bigint GENERATED ALWAYS AS ((body->>'seq')::bigint) STORED,
  renderer text COLLATE "C" GENERATED ALWAYS AS (body->>'renderer') STORED,
  owner    text COLLATE "C" GENERATED ALWAYS AS (body->>'owner') STORED,
  model    text COLLATE "C" GENERATED ALWAYS AS (body->>'model') STORED,
  kind     text COLLATE "C" GENERATED ALWAYS AS (body->>'kind') STORED,
  state    text COLLATE "C" GENERATED ALWAYS AS (body->>'state') STORED,
  resource text COLLATE "C" GENERATED ALWAYS AS (body->>'resource') STORED,
  ended    boolean NOT NULL GENERATED ALWAYS AS (coalesce((body->>'ended')::boolean, false)) STORED
) WITH (fillfactor = 70);
CREATE TABLE models (
  id text COLLATE "C" PRIMARY KEY, body jsonb NOT NULL, position bigint NOT NULL,
  seq      bigint GENERATED ALWAYS AS ((body->>'seq')::bigint) STORED,
  renderer text COLLATE "C" GENERATED ALWAYS AS (body->>'renderer') STORED,
  model    text COLLATE "C" GENERATED ALWAYS AS (body->>'model') STORED
) WITH (fillfactor = 70);
CREATE TABLE owners (
  id text COLLATE "C" PRIMARY KEY, body jsonb NOT NULL, position bigint NOT NULL
) WITH (fillfactor = 70);

-- Not one on position: it would change with every update, and an update that changes no indexed column writes no index.
CREATE INDEX resources_seq      ON resources (seq);
CREATE INDEX resources_renderer ON resources (renderer, state, seq);
CREATE INDEX resources_live     ON resources (seq) WHERE NOT ended;
CREATE INDEX sessions_seq       ON sessions (seq);
CREATE INDEX sessions_owner     ON sessions (owner, seq);
CREATE INDEX sessions_renderer  ON sessions (renderer, seq);
CREATE INDEX sessions_live      ON sessions (renderer, state) WHERE NOT ended;
CREATE INDEX jobs_seq           ON jobs (seq);
CREATE INDEX jobs_owner         ON jobs (owner, seq);
CREATE INDEX jobs_renderer      ON jobs (renderer, seq);
CREATE INDEX jobs_live          ON jobs (renderer, state) WHERE NOT ended;
CREATE INDEX models_renderer    ON models (renderer, model);

-- Which rows an append wrote, for processes that catch up by position. Old ones are forgotten, see Log.PruneChanges: the
-- list is complete after its first position.
CREATE TABLE changes (
  position bigint PRIMARY KEY,
  views    text[] COLLATE "C" NOT NULL,
  ids      text[] COLLATE "C" NOT NULL
);
INSERT INTO changes VALUES (0, '{}', '{}');

-- Of the functions below: enable_seqscan off makes whatever cannot do without a scan look so dear to the planner that it would
-- compile the query first (jit), which takes a tenth of a second. So jit is off, and the one row of log_head is found by its key.

-- rrm_since gives, in one snapshot, the head (view 'head', id the epoch) and every row written after a position,
-- ended ones too. Where that is forgotten the head alone comes, without an epoch. The settings: how much was written
-- after a position is unknown to a cached plan, which would guess a third of all.
-- +goose StatementBegin
CREATE FUNCTION rrm_since(p_since bigint) RETURNS TABLE (view text, id text, body jsonb, "position" bigint)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
  IF p_since < (SELECT min(position) FROM changes) THEN
    RETURN QUERY SELECT 'head', '', NULL::jsonb, position FROM log_head WHERE one;
    RETURN;
  END IF;
  RETURN QUERY
    WITH c AS MATERIALIZED (
      SELECT DISTINCT v, i FROM changes CROSS JOIN LATERAL unnest(views, ids) AS x(v, i) WHERE position > p_since
    )
    SELECT 'head', epoch::text, NULL::jsonb, position FROM log_head WHERE one
    UNION ALL SELECT v, id, body, position FROM c JOIN service ON id = i WHERE v = 'service'
    UNION ALL SELECT v, id, body, position FROM c JOIN pools ON id = i WHERE v = 'pools'
    UNION ALL SELECT v, id, body, position FROM c JOIN resources ON id = i WHERE v = 'resources'
    UNION ALL SELECT v, id, body, position FROM c JOIN models ON id = i WHERE v = 'models'
    UNION ALL SELECT v, id, body, position FROM c JOIN owners ON id = i WHERE v = 'owners'
    UNION ALL SELECT v, id, body, position FROM c JOIN sessions ON id = i WHERE v = 'sessions'
    UNION ALL SELECT v, id, body, position FROM c JOIN jobs ON id = i WHERE v = 'jobs';
END $$;
-- +goose StatementEnd

-- rrm_live is what a starting process loads: every row that has not ended, and the head, in one snapshot.
-- +goose StatementBegin
CREATE FUNCTION rrm_live() RETURNS TABLE (view text, id text, body jsonb, "position" bigint)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT 'head', epoch::text, NULL::jsonb, position FROM log_head WHERE one
    UNION ALL SELECT 'service', id, body, position FROM service
    UNION ALL SELECT 'pools', id, body, position FROM pools
    UNION ALL SELECT 'resources', id, body, position FROM resources WHERE NOT ended
    UNION ALL SELECT 'models', id, body, position FROM models
    UNION ALL SELECT 'owners', id, body, position FROM owners
    UNION ALL SELECT 'sessions', id, body, position FROM sessions WHERE NOT ended
    UNION ALL SELECT 'jobs', id, body, position FROM jobs WHERE NOT ended;
END $$;
-- +goose StatementEnd

-- rrm_lock_since takes the head's lock for the rest of the transaction, then gives what rrm_since gives. VOLATILE, so
-- that the second statement sees what was committed before the lock was granted. A process that freezes with the lock
-- loses its connection, and with it the lock, after five seconds.
-- +goose StatementBegin
CREATE FUNCTION rrm_lock_since(p_since bigint) RETURNS TABLE (view text, id text, body jsonb, "position" bigint)
LANGUAGE plpgsql VOLATILE SET lock_timeout = '4s' SET jit = off AS $$
BEGIN
  PERFORM set_config('idle_in_transaction_session_timeout', '5000', true);
  PERFORM 1 FROM log_head WHERE one FOR UPDATE;
  RETURN QUERY SELECT * FROM rrm_since(p_since);
END $$;
-- +goose StatementEnd

-- rrm_append appends if the log still ends at p_expected and has epoch p_epoch. It returns the new head, or -1 if the
-- head moved: nothing was written, refresh and decide again. All or nothing, and durable when it returns.
-- A session that becomes ready, or whose lease counts throughout, gets its lease here, so that there is no lease
-- without an end; one that ended loses it.
-- Documents of JSON come as one text, with the control character 31 between them, which JSON cannot hold: an array's
-- literal would have every quote escaped, which took a tenth of the append on either side.
-- Never NOTIFY in here: it makes all commits of the server wait for each other.
-- +goose StatementBegin
CREATE FUNCTION rrm_append(
  p_expected bigint, p_epoch bigint,
  p_stream text[], p_version bigint[], p_type text[], p_schema int[], p_data text, p_meta text, p_subjects text[],
  p_cmd text[], p_hash text[], p_answer text, p_answer_position bigint[],
  p_view text[], p_row text[], p_bodies text
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  n int := cardinality(p_stream);
  head bigint; at timestamptz;
  p_body text[] := string_to_array(p_bodies, E'\x1f');
  begun text[]; seconds double precision[]; held text[]; over text[];
BEGIN
  -- The compare and the lock are one statement, which writes nothing for a stale caller.
  UPDATE log_head SET position = position + n WHERE one AND position = p_expected AND epoch = p_epoch RETURNING position INTO head;
  IF head IS NULL THEN RETURN -1; END IF;
  at := clock_timestamp();

  IF n > 0 THEN
    -- Normally the service makes partitions ahead; an append never fails because it did not.
    IF (head + 1000000) / 50000000 > 0 AND to_regclass('events_p' || (head + 1000000 - 1) / 50000000) IS NULL THEN
      PERFORM rrm_ensure_partition(head + 1000000);
    END IF;
    INSERT INTO events (position, stream, version, type, schema, data, meta, subjects, recorded_at)
      SELECT p_expected + o, s, v, t, k, d::jsonb, m::jsonb, u::text[], at
      FROM unnest(p_stream, p_version, p_type, p_schema, string_to_array(p_data, E'\x1f'), string_to_array(p_meta, E'\x1f'), p_subjects) WITH ORDINALITY AS x(s, v, t, k, d, m, u, o);
    IF cardinality(p_view) > 0 THEN
      INSERT INTO changes VALUES (head, p_view, p_row);
    END IF;
  ELSIF cardinality(p_view) > 0 THEN
    RAISE EXCEPTION 'live rows without events: other replicas would never see them' USING ERRCODE = 'integrity_constraint_violation';
  END IF;

  IF cardinality(p_cmd) > 0 THEN
    INSERT INTO answers (command_id, hash, answer, position, recorded_at)
      SELECT c, h, a::json, p, at FROM unnest(p_cmd, p_hash, string_to_array(p_answer, E'\x1f'), p_answer_position) AS x(c, h, a, p);
  END IF;

  IF 'sessions' = ANY (p_view) THEN
    WITH up AS (
      INSERT INTO sessions AS r (id, body, position)
        SELECT i, b::jsonb, head FROM unnest(p_view, p_row, p_body) AS x(v, i, b) WHERE v = 'sessions'
        ON CONFLICT (id) DO UPDATE SET body = EXCLUDED.body, position = EXCLUDED.position
        RETURNING r.id, r.ended, r.resource, (r.body->>'lease_seconds')::double precision AS lease,
          r.state = 'ready' OR coalesce((r.body->>'leased_throughout')::boolean, false) AS leased
    )
    SELECT array_agg(id) FILTER (WHERE ended), array_agg(id) FILTER (WHERE leased AND NOT ended),
        array_agg(lease) FILTER (WHERE leased AND NOT ended), array_agg(resource) FILTER (WHERE leased AND NOT ended)
      INTO over, begun, seconds, held FROM up;
    IF over IS NOT NULL THEN
      DELETE FROM liveness WHERE kind = 'session' AND id = ANY (over);
    END IF;
    IF begun IS NOT NULL THEN
      INSERT INTO liveness AS l (kind, id, expires_at, lease_seconds, detail, updated_at)
        SELECT 'session', i, at + s * interval '1 second', s, jsonb_build_object('resource', r), at
        FROM unnest(begun, seconds, held) AS x(i, s, r)
        ON CONFLICT (kind, id) DO UPDATE
          SET expires_at = EXCLUDED.expires_at, lease_seconds = EXCLUDED.lease_seconds, claimed = false,
              detail = l.detail || EXCLUDED.detail, updated_at = EXCLUDED.updated_at
          WHERE l.detail->>'resource' IS DISTINCT FROM EXCLUDED.detail->>'resource';
    END IF;
  END IF;
  IF 'jobs' = ANY (p_view) THEN
    INSERT INTO jobs (id, body, position)
      SELECT i, b::jsonb, head FROM unnest(p_view, p_row, p_body) AS x(v, i, b) WHERE v = 'jobs'
      ON CONFLICT (id) DO UPDATE SET body = EXCLUDED.body, position = EXCLUDED.position;
  END IF;
  IF 'resources' = ANY (p_view) THEN
    INSERT INTO resources (id, body, position)
      SELECT i, b::jsonb, head FROM unnest(p_view, p_row, p_body) AS x(v, i, b) WHERE v = 'resources'
      ON CONFLICT (id) DO UPDATE SET body = EXCLUDED.body, position = EXCLUDED.position;
  END IF;
  IF 'models' = ANY (p_view) THEN
    INSERT INTO models (id, body, position)
      SELECT i, b::jsonb, head FROM unnest(p_view, p_row, p_body) AS x(v, i, b) WHERE v = 'models'
      ON CONFLICT (id) DO UPDATE SET body = EXCLUDED.body, position = EXCLUDED.position;
  END IF;
  IF 'owners' = ANY (p_view) THEN
    INSERT INTO owners (id, body, position)
      SELECT i, b::jsonb, head FROM unnest(p_view, p_row, p_body) AS x(v, i, b) WHERE v = 'owners'
      ON CONFLICT (id) DO UPDATE SET body = EXCLUDED.body, position = EXCLUDED.position;
  END IF;
  IF 'pools' = ANY (p_view) THEN
    INSERT INTO pools (id, body, position)
      SELECT i, b::jsonb, head FROM unnest(p_view, p_row, p_body) AS x(v, i, b) WHERE v = 'pools'
      ON CONFLICT (id) DO UPDATE SET body = EXCLUDED.body, position = EXCLUDED.position;
  END IF;
  IF 'service' = ANY (p_view) THEN
    INSERT INTO service (id, body, position)
      SELECT i, b::jsonb, head FROM unnest(p_view, p_row, p_body) AS x(v, i, b) WHERE v = 'service'
      ON CONFLICT (id) DO UPDATE SET body = EXCLUDED.body, position = EXCLUDED.position;
  END IF;
  RETURN head;
END $$;
-- +goose StatementEnd
-- The set is always small and the tables are not: index nested loops, whatever the statistics say (a factor of two),
-- and one plan for good instead of planning anew for every batch.
ALTER FUNCTION rrm_append SET enable_hashjoin = off;
ALTER FUNCTION rrm_append SET enable_mergejoin = off;
ALTER FUNCTION rrm_append SET enable_seqscan = off;
ALTER FUNCTION rrm_append SET jit = off;
ALTER FUNCTION rrm_append SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION rrm_append SET lock_timeout = '4s';

-- +goose Down
-- +goose StatementBegin
DO $$ BEGIN RAISE EXCEPTION 'the log is never dropped: restore a backup instead'; END $$;
-- +goose StatementEnd
