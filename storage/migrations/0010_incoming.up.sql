-- What events of other servers need beside the events: what of the graph is missing, redactions that came before what
-- they redact, events outside the graph, and what has been received.

CREATE TABLE missing_events (
    room_nid integer NOT NULL,
    -- A previous event of one in the graph that is not in the graph itself.
    event_id text NOT NULL,
    -- Where in history the first event stands that refers to it; what is missing comes before.
    topological bigint NOT NULL,
    PRIMARY KEY (room_nid, event_id)
);
COMMENT ON TABLE missing_events IS 'The gaps in the graphs of rooms, and where history as known here begins. Bound: 20 for each event at a gap; a row is removed when its event comes.';

CREATE TABLE pending_redactions (
    room_nid integer NOT NULL,
    -- The event that is to be redacted.
    redacts text NOT NULL,
    redaction_nid bigint NOT NULL,
    PRIMARY KEY (room_nid, redacts, redaction_nid)
);
COMMENT ON TABLE pending_redactions IS 'Redactions whose target is not stored yet. Bound: redactions; a row is removed when its target comes, and with the room.';

CREATE TABLE postponed_events (
    room_nid integer NOT NULL,
    event_id text NOT NULL,
    -- The server that has sent it, and is asked first for what it refers to.
    origin text NOT NULL,
    event text NOT NULL,
    failures integer NOT NULL DEFAULT 0,
    retry_at_ts bigint NOT NULL,
    PRIMARY KEY (room_nid, event_id)
);
COMMENT ON TABLE postponed_events IS 'Events that passed the gate, while what they refer to cannot be had. Bound: 200 for each room; a row is removed when its event is taken, and after 12 failures.';
CREATE INDEX postponed_events_due ON postponed_events (retry_at_ts);

CREATE TABLE relayed_events (
    event_nid bigint PRIMARY KEY,
    added_at timestamptz NOT NULL DEFAULT now(),
    position bigint NOT NULL DEFAULT stream_position()
);
COMMENT ON TABLE relayed_events IS 'Events of other servers that this one passes on to the servers in the room. Bound: memberships by way of this server; swept after 7 days.';
CREATE INDEX relayed_events_position ON relayed_events (position);

CREATE TABLE received_transactions (
    origin text NOT NULL,
    transaction_id text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    -- What was answered, as JSON.
    response text NOT NULL,
    PRIMARY KEY (origin, transaction_id)
);
COMMENT ON TABLE received_transactions IS 'Transactions of other servers and what was answered. Bound: transactions of a day, after which they are swept.';
CREATE INDEX received_transactions_time ON received_transactions (received_at);

-- Some events, and what lies before those of them that no new event may refer to: all that an event which follows them
-- covers. An event that is rejected or soft-failed does not end the graph, so what it follows must not begin it anew.
CREATE FUNCTION covered_events(of_event_nids bigint[]) RETURNS bigint[] STABLE LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM unnest(of_event_nids) AS named (event_nid) JOIN events e USING (event_nid)
        WHERE e.rejected IS NOT NULL OR e.soft_failed
    ) THEN
        RETURN of_event_nids;
    END IF;
    RETURN ARRAY (
        WITH RECURSIVE covered (event_nid) AS (
            SELECT unnest(of_event_nids)
            UNION
            SELECT before.event_nid
            FROM covered JOIN events e USING (event_nid), unnest(e.prev_event_nids) AS before (event_nid)
            WHERE e.rejected IS NOT NULL OR e.soft_failed
        )
        SELECT event_nid FROM covered LIMIT 1000
    );
END
$$;

-- Whether events that are about to be added are still known as their caller saw them. The caller holds the lock of the
-- room's row; the arguments are those of append_events.
CREATE FUNCTION is_arrival_as_seen(
    of_room_nid integer, new_events new_event[], awaited_target text, reviewed_redactions bigint[]
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM unnest(new_events) n JOIN events e ON e.event_nid = n.outlier_nid WHERE e.state_id IS NOT NULL
    ) THEN
        RAISE unique_violation USING CONSTRAINT = 'events_event_id_key', MESSAGE = 'The event is in the graph already';
    END IF;
    RETURN NOT EXISTS (
        SELECT FROM unnest(new_events) n JOIN events e ON e.event_nid = n.outlier_nid
        WHERE e.revision <> n.outlier_revision
    ) AND NOT EXISTS (
        SELECT FROM unnest(new_events) n JOIN pending_redactions p ON p.room_nid = of_room_nid AND p.redacts = n.event_id
        WHERE p.redaction_nid <> ALL (reviewed_redactions)
    ) AND (awaited_target IS NULL OR NOT EXISTS (SELECT FROM events e WHERE e.event_id = awaited_target));
END
$$;

-- Whether an event names another one among its previous events, by the text that only servers see.
CREATE FUNCTION names_previous(federation_json text, event_id text) RETURNS boolean IMMUTABLE LANGUAGE sql AS $$
    SELECT strpos(split_part(federation_json, '"prev_events":', 2), '"' || event_id || '"') > 0
$$;

-- Notes what is missing and waited for now that events have been added; as above.
CREATE FUNCTION note_arrival(
    of_room_nid integer, nids bigint[], new_events new_event[], missing_event_ids text[], awaited_target text,
    reviewed_redactions bigint[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM unnest(new_events) n JOIN missing_events m ON m.room_nid = of_room_nid AND m.event_id = n.event_id;
    IF FOUND THEN
        -- What they were missed by follows them now.
        UPDATE events e SET prev_event_nids = e.prev_event_nids || n.event_nid
        FROM unnest(nids) AS n (event_nid)
        JOIN events came ON came.event_nid = n.event_nid
        JOIN missing_events m ON m.room_nid = of_room_nid AND m.event_id = came.event_id
        WHERE e.room_nid = of_room_nid AND e.topological = m.topological AND NOT n.event_nid = ANY (e.prev_event_nids)
            AND names_previous(e.federation_json, m.event_id);
        DELETE FROM missing_events m USING unnest(new_events) n
        WHERE m.room_nid = of_room_nid AND m.event_id = n.event_id;
    END IF;
    IF cardinality(missing_event_ids) > 0 AND new_events[1].rejected IS NULL AND NOT new_events[1].soft_failed THEN
        INSERT INTO missing_events (room_nid, event_id, topological)
        SELECT of_room_nid, missing.event_id, coalesce(
            (SELECT e.topological FROM events e WHERE e.event_nid = nids[1]),
            -- For one that is hidden: the end of history.
            (SELECT max(e.topological) FROM events e WHERE e.room_nid = of_room_nid AND e.topological IS NOT NULL)
        )
        FROM unnest(missing_event_ids) AS missing (event_id)
        ON CONFLICT DO NOTHING;
    END IF;
    IF awaited_target IS NOT NULL THEN
        INSERT INTO pending_redactions (room_nid, redacts, redaction_nid) VALUES (of_room_nid, awaited_target, nids[1]);
    END IF;
    IF cardinality(reviewed_redactions) > 0 THEN
        DELETE FROM pending_redactions p USING unnest(new_events) n
        WHERE p.room_nid = of_room_nid AND p.redacts = n.event_id;
    END IF;
END
$$;

-- Stores events outside the graph; those that are there already stay as they are. `auth_events` may refer to events before
-- in the same call by -n. Returns them as they are stored, in the order of the call.
CREATE FUNCTION store_outliers(of_room_nid integer, new_events new_event[], reviewed_redactions bigint[])
RETURNS TABLE (event_id text, event_nid bigint, rejected text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    one new_event;
    nid bigint;
    nids bigint[] := '{}';
BEGIN
    PERFORM FROM rooms r WHERE r.room_nid = of_room_nid FOR NO KEY UPDATE;
    IF NOT is_arrival_as_seen(of_room_nid, new_events, NULL, reviewed_redactions) THEN
        RETURN;
    END IF;
    FOREACH one IN ARRAY new_events LOOP
        INSERT INTO events (
            event_id, room_nid, depth, origin_server_ts, type, state_key, sender, auth_event_nids, rejected, redacted_by,
            client_json, federation_json
        ) VALUES (
            one.event_id, of_room_nid, one.depth, one.origin_server_ts, one.type, one.state_key, one.sender,
            ARRAY (SELECT CASE WHEN n < 0 THEN nids[-n] ELSE n END FROM unnest(one.auth_events) AS n),
            one.rejected, one.redacted_by, one.client_json, one.federation_json
        ) ON CONFLICT (event_id) DO NOTHING RETURNING event_nid INTO nid;
        IF nid IS NULL THEN
            SELECT e.event_nid INTO nid FROM events e WHERE e.event_id = one.event_id;
        END IF;
        nids := nids || nid;
    END LOOP;
    IF cardinality(reviewed_redactions) > 0 THEN
        DELETE FROM pending_redactions p USING unnest(new_events) n
        WHERE p.room_nid = of_room_nid AND p.redacts = n.event_id;
    END IF;
    RETURN QUERY
    SELECT e.event_id, e.event_nid, e.rejected
    FROM unnest(nids) WITH ORDINALITY AS stored (event_nid, number) JOIN events e USING (event_nid)
    ORDER BY stored.number;
END
$$;
