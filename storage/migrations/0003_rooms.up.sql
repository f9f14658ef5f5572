-- Rooms, their events and their state.
--
-- Texts that repeat are integers inside the database: a room is a `room_nid`, an event an `event_nid`, a place in a
-- room's state (event type and state key) a `slot_id`. Each table says what bounds it.

CREATE TABLE rooms (
    room_nid integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    room_id text NOT NULL UNIQUE,
    room_version text NOT NULL,
    -- Raised by every change of the current state; who appends events says which version they were checked against.
    state_version bigint NOT NULL DEFAULT 0,
    -- The snapshot of the current state; NULL while this server is not in the room.
    state_id bigint,
    forward_extremities bigint[] NOT NULL DEFAULT '{}'
) WITH (fillfactor = 70);
COMMENT ON TABLE rooms IS 'One row per room that this server has ever known. Bound: rooms; swept by the deletion of a room.';

CREATE TABLE events (
    -- The order of arrival. Within one room it agrees with `position`, for the room row is locked while events are added.
    event_nid bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id text NOT NULL UNIQUE,
    room_nid integer NOT NULL,
    -- Where the event stands in the one stream that clients follow; NULL for what is not streamed: history fetched later,
    -- events outside the room's graph, rejected and soft-failed ones.
    position bigint,
    -- The order of history, computed here from prev_events and never taken from `depth`; NULL for events outside the graph.
    topological bigint,
    depth bigint NOT NULL,
    origin_server_ts bigint NOT NULL,
    type text NOT NULL,
    state_key text,
    sender text NOT NULL,
    -- The state before the event; NULL for events outside the graph.
    state_id bigint,
    -- Those that are known, as integers, for walking the graph.
    prev_event_nids bigint[] NOT NULL DEFAULT '{}',
    auth_event_nids bigint[] NOT NULL DEFAULT '{}',
    -- Why the event failed authorisation; rejected for good. NULL for accepted events.
    rejected text,
    soft_failed boolean NOT NULL DEFAULT false,
    redacted_by text,
    -- The root of the thread that the event belongs to.
    thread_root text,
    -- The client request that made the event: unique by the index below, and told to that device only.
    device_id text,
    transaction_id text,
    -- What the default push rules do with it for a member they treat like any other: an entry of push_actions.
    push_actions_id smallint,
    -- The event as clients see it, and the rest of what servers exchange. Both together are the event; neither repeats
    -- the other.
    client_json text NOT NULL,
    federation_json text NOT NULL
);
COMMENT ON TABLE events IS 'Every event. Bound: history; swept by retention, purge and the deletion of a room.';
CREATE INDEX events_position ON events (position) WHERE position IS NOT NULL;
CREATE INDEX events_room_position ON events (room_nid, position, event_nid) WHERE position IS NOT NULL;
CREATE INDEX events_room_topological ON events (room_nid, topological, event_nid) WHERE topological IS NOT NULL;
CREATE UNIQUE INDEX events_transaction ON events (sender, device_id, room_nid, transaction_id, (type = 'm.room.redaction'))
    WHERE transaction_id IS NOT NULL;
CREATE INDEX events_redacted_by ON events (redacted_by) WHERE redacted_by IS NOT NULL;

CREATE TABLE state_slots (
    slot_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    type text NOT NULL,
    state_key text NOT NULL,
    UNIQUE (type, state_key)
);
COMMENT ON TABLE state_slots IS 'Event types and state keys as integers. Bound: distinct pairs ever used.';

-- A snapshot is a whole state, immutable, stored as a difference to its parent. Differences grow like the digits of a
-- binary counter: one that has grown as large as half its parent's absorbs it, so a chain is logarithmic in the state's size
-- and an entry is rewritten a logarithmic number of times.
CREATE TABLE state_snapshots (
    state_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    room_nid integer NOT NULL,
    parent_id bigint,
    -- The sum of the hashes of all its entries: equal states are one row, however they came about.
    fingerprint bytea NOT NULL,
    entry_count integer NOT NULL,
    -- Slot and event of each entry that differs from the parent; event 0 says that the slot is empty.
    slot_ids integer[] NOT NULL,
    event_nids bigint[] NOT NULL,
    UNIQUE (room_nid, fingerprint)
);
COMMENT ON TABLE state_snapshots IS 'States of rooms. Bound: changes of state; unreferenced ones are swept.';

CREATE TABLE current_state (
    room_nid integer NOT NULL,
    slot_id integer NOT NULL,
    event_nid bigint NOT NULL,
    PRIMARY KEY (room_nid, slot_id)
);
COMMENT ON TABLE current_state IS 'The entries of each room''s current state. Bound: state; swept with the room.';

CREATE TABLE state_history (
    room_nid integer NOT NULL,
    position bigint NOT NULL DEFAULT stream_position(),
    serial bigint GENERATED ALWAYS AS IDENTITY,
    state_id bigint NOT NULL,
    PRIMARY KEY (room_nid, position, serial)
);
COMMENT ON TABLE state_history IS 'Which snapshot was current from which position on. Bound: changes of state.';
CREATE INDEX state_history_position ON state_history (position);

CREATE TABLE memberships (
    user_id text NOT NULL,
    room_nid integer NOT NULL,
    membership text NOT NULL,
    event_nid bigint NOT NULL,
    sender text NOT NULL,
    -- Set by /forget, cleared by the next membership.
    forgotten boolean NOT NULL DEFAULT false,
    position bigint NOT NULL DEFAULT stream_position(),
    PRIMARY KEY (user_id, room_nid)
);
COMMENT ON TABLE memberships IS 'The current membership of each user, local and remote, in each room. Bound: one row per pair.';
CREATE INDEX memberships_room ON memberships (room_nid, membership);

CREATE TABLE membership_changes (
    user_id text NOT NULL,
    position bigint NOT NULL DEFAULT stream_position(),
    serial bigint GENERATED ALWAYS AS IDENTITY,
    room_nid integer NOT NULL,
    membership text NOT NULL,
    event_nid bigint NOT NULL,
    PRIMARY KEY (user_id, position, serial)
);
COMMENT ON TABLE membership_changes IS 'Each change of a local user''s membership, so that a sync knows what held at its positions. Bound: member events of local users.';
CREATE INDEX membership_changes_position ON membership_changes (position);

-- What lists of rooms show, kept beside the current state that it is read from.
CREATE TABLE room_summaries (
    room_nid integer PRIMARY KEY,
    name text,
    topic text,
    avatar_url text,
    canonical_alias text,
    join_rule text,
    history_visibility text,
    guest_access text,
    room_type text,
    encryption text,
    joined_members integer NOT NULL DEFAULT 0,
    invited_members integer NOT NULL DEFAULT 0,
    local_joined_members integer NOT NULL DEFAULT 0
) WITH (fillfactor = 70);
COMMENT ON TABLE room_summaries IS 'One row per room that this server is or was in. Bound: rooms.';

CREATE TABLE relations (
    event_nid bigint PRIMARY KEY,
    room_nid integer NOT NULL,
    relates_to text NOT NULL,
    rel_type text NOT NULL,
    -- The key of an annotation.
    key text
);
COMMENT ON TABLE relations IS 'Events that relate to another by m.relates_to; removed when the event is redacted. Bound: events.';
CREATE INDEX relations_target ON relations (relates_to, rel_type, event_nid);
