-- Positions: the order that all streams share, and what follows them.
--
-- A row's position is the id of the transaction that wrote it. A reader takes `since <= position < upto`, where `upto` is
-- stream_bound(): below it no transaction of this database is open, so nothing can appear there any more.

-- Added to every transaction id. Zero until the database has been restored from a dump, which starts transaction ids anew;
-- rebase_streams() then raises it above all positions that were ever given.
CREATE FUNCTION stream_offset() RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT 0::bigint';

CREATE FUNCTION stream_position() RETURNS bigint VOLATILE LANGUAGE sql AS
    'SELECT pg_current_xact_id()::text::bigint + stream_offset()';

-- The bound of what may be read, for rows that a *later* statement reads.
--
-- The plain answer is the oldest transaction id that is open anywhere in the cluster. Another database's long transaction
-- would then hold this one back, so if any is open the answer is taken from this database's own sessions, in an order that
-- leaves no gap:
--  1. `newest`: no id from here on has ended, as the snapshot saw it.
--  2. The sessions' open ids. Whoever had an id below `newest` at step 1 shows it until it ends; once it has ended, the
--     snapshot of any later statement sees what it wrote. Who gets an id after step 1 gets one from `newest` on.
--  3. Prepared transactions, which no session shows; after step 2, for a transaction moves from there to here.
-- With a snapshot that serves a whole transaction there is no later one; on a standby no ids are shown: then the plain answer.
CREATE FUNCTION stream_bound() RETURNS bigint VOLATILE LANGUAGE plpgsql AS $$
DECLARE
    snapshot pg_snapshot := pg_current_snapshot();
    plain bigint := pg_snapshot_xmin(snapshot)::text::bigint;
    newest bigint := pg_snapshot_xmax(snapshot)::text::bigint;
    oldest_in_session bigint;
    oldest_prepared bigint;
    sees_itself boolean;
BEGIN
    IF plain = newest OR pg_is_in_recovery()
        OR current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted')
    THEN
        RETURN plain + stream_offset();
    END IF;
    -- A transaction keeps the list of sessions that it has once read.
    PERFORM pg_stat_clear_snapshot();
    -- backend_xid is the lower half of an id; one "behind" newest by more than half its range lies in fact before it.
    SELECT min(newest - age) FILTER (WHERE age < 2147483648), bool_or(pid = pg_backend_pid())
        INTO oldest_in_session, sees_itself
        FROM (SELECT pid, (newest - backend_xid::text::bigint) & 4294967295 AS age FROM pg_stat_activity
              WHERE datid = (SELECT oid FROM pg_database WHERE datname = current_database())) AS sessions;
    IF sees_itself IS NOT TRUE THEN
        RETURN plain + stream_offset();
    END IF;
    SELECT min(newest - age) FILTER (WHERE age < 2147483648) INTO oldest_prepared
        FROM (SELECT (newest - transaction::text::bigint) & 4294967295 AS age FROM pg_prepared_xacts
              WHERE database = current_database()) AS prepared;
    RETURN LEAST(newest, oldest_in_session, oldest_prepared) + stream_offset();
END
$$;

-- The largest position in any table; reads whole tables, so only for the operator's commands.
CREATE FUNCTION largest_position() RETURNS bigint STABLE LANGUAGE plpgsql AS $$
DECLARE
    streamed regclass;
    candidate bigint;
    largest bigint := 0;
BEGIN
    FOR streamed IN
        SELECT c.oid::regclass FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
        WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace
            AND a.attname = 'position' AND a.atttypid = 'bigint'::regtype
    LOOP
        EXECUTE format('SELECT max(position) FROM %s', streamed) INTO candidate;
        largest := GREATEST(largest, candidate);
    END LOOP;
    RETURN largest;
END
$$;

-- Raises the offset so that new positions lie above all given ones by a margin: a client's token may be ahead of every row.
CREATE FUNCTION rebase_streams(margin bigint) RETURNS bigint VOLATILE LANGUAGE plpgsql AS $$
DECLARE
    new_offset bigint := largest_position() + margin;
BEGIN
    EXECUTE format('CREATE OR REPLACE FUNCTION stream_offset() RETURNS bigint IMMUTABLE LANGUAGE sql AS %L',
                   format('SELECT %s::bigint', new_offset));
    RETURN new_offset;
END
$$;

-- Unlogged, for they are renewed every few seconds, and after a crash of the database nobody holds them any more anyway:
-- whoever was at work has lost its connection and finds at the next renewal that it must stop.
CREATE UNLOGGED TABLE leases (
    name text PRIMARY KEY,
    holder text NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE leases IS 'Which process does what only one may do: followers, joins, completions, shares of work. Bound: work in progress; given back when it is done, and swept an hour after they expired.';

CREATE TABLE follower_positions (
    name text PRIMARY KEY,
    -- Everything before it has been handled.
    position bigint NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE follower_positions IS 'How far each follower has come. Bound: one row per follower.';
