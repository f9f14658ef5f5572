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

-- Up to where users have read by sending something themselves.
CREATE INDEX events_sent ON events (sender, room_nid, thread_root, event_nid)
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
