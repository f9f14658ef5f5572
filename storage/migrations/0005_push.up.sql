-- Push rules of users, and what they make of events.
--
-- An ordinary message writes no row for its readers: `events.push_actions_id` says what it does for every joined local
-- member but its sender, and `events.notifying_count` tells how many such messages lie between two events. A member for
-- whom an event does something else has a row in event_push_exceptions, which carries running totals likewise. So how
-- much is unread costs the same, however much that is. Threads are few and are counted one by one.

CREATE TABLE push_rules (
    user_id text PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    -- What the user made and changed, as JSON; `{}`: nothing (any more).
    rules text NOT NULL,
    is_default boolean NOT NULL GENERATED ALWAYS AS (rules = '{}') STORED,
    position bigint NOT NULL DEFAULT stream_position()
);
COMMENT ON TABLE push_rules IS 'The push rules of users who have changed something. Bound: 256 KiB per user.';
CREATE INDEX push_rules_position ON push_rules (position);

CREATE TABLE push_actions (
    -- Negative for actions that highlight, so that an index of events can tell.
    actions_id smallint PRIMARY KEY,
    -- Canonical JSON.
    actions text NOT NULL UNIQUE
);
COMMENT ON TABLE push_actions IS 'The lists of actions of default push rules, as integers. Bound: the rules; users add none.';

CREATE TABLE event_push_exceptions (
    user_id text NOT NULL,
    room_nid integer NOT NULL,
    event_nid bigint NOT NULL,
    thread_root text,
    -- JSON; NULL in a row that only carries the totals of older ones, which were swept.
    actions text,
    notify boolean NOT NULL,
    highlight boolean NOT NULL,
    -- What the row adds to the counts that the default would give.
    notify_delta smallint NOT NULL,
    highlight_delta smallint NOT NULL,
    -- The sums of these in the user's rows of the room up to this one that belong to no thread.
    notify_total integer NOT NULL,
    highlight_total integer NOT NULL,
    redacted boolean NOT NULL DEFAULT false,
    added_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, room_nid, event_nid)
);
COMMENT ON TABLE event_push_exceptions IS 'Events that do something else for a member than for most. Bound: members whose rules deviate, by event; swept after 30 days but for one row per member and room.';
CREATE INDEX event_push_exceptions_event ON event_push_exceptions (event_nid) WHERE actions IS NOT NULL;
CREATE INDEX event_push_exceptions_notify ON event_push_exceptions (user_id, event_nid) WHERE notify AND NOT redacted;
CREATE INDEX event_push_exceptions_thread ON event_push_exceptions (user_id, room_nid, event_nid)
    WHERE thread_root IS NOT NULL;
CREATE INDEX event_push_exceptions_redacted ON event_push_exceptions (user_id, room_nid, event_nid) WHERE redacted;

-- Up to where users have read by sending something themselves. The sender as a hash, for there is an entry for each event.
CREATE INDEX events_sent ON events (hashtext(sender), room_nid, thread_root, event_nid)
    WHERE transaction_id IS NOT NULL AND redacted_by IS NULL AND type <> 'm.room.redaction';
-- What notifying_count does not tell.
CREATE INDEX events_push_redacted ON events (room_nid, event_nid)
    WHERE redacted_by IS NOT NULL AND push_actions_id IS NOT NULL;
CREATE INDEX events_push_highlight ON events (room_nid, event_nid)
    WHERE push_actions_id < 0 AND redacted_by IS NULL;
CREATE INDEX events_push_thread ON events (room_nid, event_nid)
    WHERE push_actions_id IS NOT NULL AND thread_root IS NOT NULL;

-- Notes those for whom events that have just been added do something else than for most. Members who ignore the sender
-- are among them: for them nothing happens. The caller holds the lock of the room's row.
CREATE FUNCTION add_push_exceptions(
    of_room_nid integer, nids bigint[], new_events new_event[], push_exceptions new_push_exception[]
) RETURNS void LANGUAGE sql AS $$
    INSERT INTO event_push_exceptions (
        user_id, room_nid, event_nid, thread_root, actions, notify, highlight, notify_delta, highlight_delta,
        notify_total, highlight_total
    )
    WITH event AS (
        SELECT n.ordinality AS number, n.sender, n.thread_root,
            (n.push_actions_id IS NOT NULL)::integer AS notifies, (coalesce(n.push_actions_id, 0) < 0)::integer AS highlights
        FROM unnest(new_events) WITH ORDINALITY AS n
        WHERE n.rejected IS NULL AND NOT n.soft_failed
    ), outcome AS (
        SELECT -x.event AS number, x.user_id, x.actions, x.notify, x.highlight
        FROM unnest(push_exceptions) x JOIN event e ON e.number = -x.event
        WHERE NOT EXISTS (SELECT FROM ignored_users i WHERE i.user_id = x.user_id AND i.ignored_user_id = e.sender)
        UNION ALL
        SELECT e.number, i.user_id, '[]', false, false
        FROM event e
        JOIN ignored_users i ON i.ignored_user_id = e.sender
        JOIN memberships m ON m.user_id = i.user_id AND m.room_nid = of_room_nid AND m.membership = 'join'
        WHERE e.notifies = 1
    ), correction AS (
        SELECT o.*, e.thread_root, o.notify::integer - e.notifies AS notify_delta,
            o.highlight::integer - e.highlights AS highlight_delta
        FROM outcome o JOIN event e USING (number)
    )
    SELECT c.user_id, of_room_nid, nids[c.number], c.thread_root, c.actions, c.notify, c.highlight,
        c.notify_delta, c.highlight_delta,
        coalesce(last.notify_total, 0) + coalesce(sum(c.notify_delta) FILTER (WHERE c.thread_root IS NULL) OVER upto, 0),
        coalesce(last.highlight_total, 0)
            + coalesce(sum(c.highlight_delta) FILTER (WHERE c.thread_root IS NULL) OVER upto, 0)
    FROM correction c
    LEFT JOIN LATERAL (
        SELECT x.notify_total, x.highlight_total FROM event_push_exceptions x
        WHERE x.user_id = c.user_id AND x.room_nid = of_room_nid
        ORDER BY x.event_nid DESC LIMIT 1
    ) last ON true
    WINDOW upto AS (PARTITION BY c.user_id ORDER BY c.number)
$$;

-- How many events of some rooms a joined user has not read and is notified of, by thread; NULL is the main timeline.
--
-- A user has read a thread up to the furthest of: the event of joining, a receipt that regards no threads, a receipt for
-- the thread, and the last event that the user has sent into it. What was swept counts as read. With the main timeline's
-- row comes the newest event that is counted.
--
-- The plan is made once: making it takes much longer than what it does, which is a few reads of indexes for each room.
CREATE FUNCTION unread_counts(of_user_id text, of_room_nids integer[])
RETURNS TABLE (room_nid integer, thread_root text, notify bigint, highlight bigint, newest_nid bigint)
STABLE LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH room AS MATERIALIZED (
        SELECT m.room_nid, greatest(m.joined_nid, swept.event_nid, receipt.unthreaded) AS read_nid,
            greatest(m.joined_nid, swept.event_nid, receipt.unthreaded, receipt.main, sent.event_nid) AS main_read_nid
        FROM memberships m
        CROSS JOIN LATERAL (
            SELECT max(r.event_nid) FILTER (WHERE r.thread_id = '') AS unthreaded,
                max(r.event_nid) FILTER (WHERE r.thread_id = 'main') AS main
            FROM receipts r WHERE r.user_id = of_user_id AND r.room_nid = m.room_nid
        ) receipt
        LEFT JOIN LATERAL (
            SELECT e.event_nid FROM events e
            WHERE hashtext(e.sender) = hashtext(of_user_id) AND e.sender = of_user_id
                AND e.room_nid = m.room_nid AND e.thread_root IS NULL
                AND e.transaction_id IS NOT NULL AND e.redacted_by IS NULL AND e.type <> 'm.room.redaction'
            -- In an order that only events_sent has: any other index would be searched from its end.
            ORDER BY e.thread_root DESC, e.event_nid DESC LIMIT 1
        ) sent ON true
        LEFT JOIN LATERAL (
            SELECT CASE WHEN x.actions IS NULL THEN x.event_nid END AS event_nid FROM event_push_exceptions x
            WHERE x.user_id = of_user_id AND x.room_nid = m.room_nid
            ORDER BY x.event_nid LIMIT 1
        ) swept ON true
        WHERE m.user_id = of_user_id AND m.room_nid = ANY (of_room_nids) AND m.membership = 'join'
    ), thread_event AS MATERIALIZED (
        SELECT room.room_nid, e.thread_root, e.event_nid, 1 AS notify, (e.push_actions_id < 0)::integer AS highlight
        FROM room CROSS JOIN LATERAL (
            SELECT e.thread_root, e.event_nid, e.push_actions_id FROM events e
            WHERE e.room_nid = room.room_nid AND e.event_nid > room.read_nid
                AND e.push_actions_id IS NOT NULL AND e.thread_root IS NOT NULL AND e.sender <> of_user_id
            ORDER BY e.event_nid DESC LIMIT 1000
        ) e
        UNION ALL
        SELECT room.room_nid, x.thread_root, x.event_nid, x.notify_delta, x.highlight_delta
        FROM room CROSS JOIN LATERAL (
            SELECT x.thread_root, x.event_nid, x.notify_delta, x.highlight_delta FROM event_push_exceptions x
            WHERE x.user_id = of_user_id AND x.room_nid = room.room_nid AND x.event_nid > room.read_nid
                AND x.thread_root IS NOT NULL AND NOT x.redacted
            ORDER BY x.event_nid DESC LIMIT 1000
        ) x
    ), thread AS MATERIALIZED (
        SELECT t.room_nid, t.thread_root, greatest(receipt.event_nid, sent.event_nid, 0) AS read_nid
        FROM (SELECT DISTINCT room_nid, thread_root FROM thread_event) t
        CROSS JOIN LATERAL (
            SELECT max(r.event_nid) AS event_nid FROM receipts r
            WHERE r.user_id = of_user_id AND r.room_nid = t.room_nid AND r.thread_id = t.thread_root
        ) receipt
        LEFT JOIN LATERAL (
            SELECT e.event_nid FROM events e
            WHERE hashtext(e.sender) = hashtext(of_user_id) AND e.sender = of_user_id AND e.room_nid = t.room_nid
                AND e.thread_root >= t.thread_root AND e.thread_root <= t.thread_root
                AND e.transaction_id IS NOT NULL AND e.redacted_by IS NULL AND e.type <> 'm.room.redaction'
            ORDER BY e.thread_root DESC, e.event_nid DESC LIMIT 1
        ) sent ON true
    )
    SELECT room.room_nid, NULL::text,
        coalesce(newest.notifying_count - at_read.notifying_count, 0) - redacted.notify
            + coalesce(own.notify_total, 0) - coalesce(own_at_read.notify_total, 0) - own_redacted.notify AS notify,
        highlighted.highlight
            + coalesce(own.highlight_total, 0) - coalesce(own_at_read.highlight_total, 0) - own_redacted.highlight
            AS highlight,
        coalesce(newest.event_nid, 0)
    FROM room
    LEFT JOIN LATERAL (
        SELECT e.event_nid, e.notifying_count FROM events e WHERE e.room_nid = room.room_nid AND e.position IS NOT NULL
        ORDER BY e.position DESC, e.event_nid DESC LIMIT 1
    ) newest ON true
    CROSS JOIN LATERAL (
        SELECT coalesce(
            (SELECT e.notifying_count FROM events e WHERE e.event_nid = room.main_read_nid),
            -- It has been purged: then what follows it tells.
            (
                SELECT e.notifying_count - (e.push_actions_id IS NOT NULL AND e.thread_root IS NULL)::integer
                FROM events e
                WHERE e.room_nid = room.room_nid AND e.position IS NOT NULL AND e.event_nid > room.main_read_nid
                ORDER BY e.position, e.event_nid LIMIT 1
            )
        ) AS notifying_count
    ) at_read
    CROSS JOIN LATERAL (
        SELECT count(*) AS notify FROM events e
        WHERE e.room_nid = room.room_nid AND e.event_nid > room.main_read_nid
            AND e.redacted_by IS NOT NULL AND e.push_actions_id IS NOT NULL
    ) redacted
    CROSS JOIN LATERAL (
        SELECT count(*) AS highlight FROM events e
        WHERE e.room_nid = room.room_nid AND e.event_nid > room.main_read_nid
            AND e.push_actions_id < 0 AND e.redacted_by IS NULL AND e.thread_root IS NULL
    ) highlighted
    LEFT JOIN LATERAL (
        SELECT x.notify_total, x.highlight_total FROM event_push_exceptions x
        WHERE x.user_id = of_user_id AND x.room_nid = room.room_nid
        ORDER BY x.event_nid DESC LIMIT 1
    ) own ON true
    LEFT JOIN LATERAL (
        SELECT x.notify_total, x.highlight_total FROM event_push_exceptions x
        WHERE x.user_id = of_user_id AND x.room_nid = room.room_nid AND x.event_nid <= room.main_read_nid
        ORDER BY x.event_nid DESC LIMIT 1
    ) own_at_read ON true
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(x.notify_delta), 0) AS notify, coalesce(sum(x.highlight_delta), 0) AS highlight
        FROM event_push_exceptions x
        WHERE x.user_id = of_user_id AND x.room_nid = room.room_nid AND x.event_nid > room.main_read_nid
            AND x.redacted AND x.thread_root IS NULL
    ) own_redacted
    UNION ALL
    SELECT e.room_nid, e.thread_root, sum(e.notify), sum(e.highlight), NULL::bigint
    FROM thread_event e JOIN thread t USING (room_nid, thread_root)
    WHERE e.event_nid > t.read_nid
    GROUP BY e.room_nid, e.thread_root;
END
$$;
