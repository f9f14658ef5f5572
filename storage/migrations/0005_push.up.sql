-- What the push rules of the members say about events.

CREATE TABLE push_actions (
    actions_id smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Canonical JSON.
    actions text NOT NULL UNIQUE,
    notify boolean NOT NULL,
    highlight boolean NOT NULL
);
COMMENT ON TABLE push_actions IS 'Lists of push actions as integers. Bound: distinct lists ever used.';

-- `events.push_actions_id` says what an event does for every joined local member but its sender; those for whom it does
-- something else have a row here.
CREATE TABLE event_push_exceptions (
    user_id text NOT NULL,
    room_nid integer NOT NULL,
    event_nid bigint NOT NULL,
    actions_id smallint NOT NULL,
    notify boolean NOT NULL,
    highlight boolean NOT NULL,
    thread_root text,
    PRIMARY KEY (user_id, room_nid, event_nid)
);
COMMENT ON TABLE event_push_exceptions IS 'Bound: members whose rules deviate, by event; swept once read.';
