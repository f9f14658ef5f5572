-- What users of this server have to do with rooms of other servers: invitations and knocks while this server is not in the
-- room, and rooms that it has joined without being told all of their members yet.

CREATE TABLE invited_states (
    event_nid bigint PRIMARY KEY,
    -- Stripped state events as a JSON array: what another server said of the room, signed by nobody.
    events text NOT NULL,
    -- Servers that are in the room, as far as that is known: through them it can be joined, and the invitation refused.
    servers text[] NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE invited_states IS
    'What is known of a room by an invitation or a knock from outside. Bound: 64 KiB per row; removed when the user''s membership changes.';

CREATE TABLE partial_rooms (
    room_nid integer PRIMARY KEY,
    -- The join by which this server came into the room: the state before it lacks most members.
    join_nid bigint NOT NULL,
    -- The servers that were in the room before, the one that answered first: events go to them, the rest comes from them.
    servers text[] NOT NULL,
    -- How often completing it has failed, and when (milliseconds) it is tried again.
    failures integer NOT NULL DEFAULT 0,
    retry_at_ts bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE partial_rooms IS
    'Rooms whose members are not all known yet. Bound: rooms; a row is removed when its room is complete or left.';

CREATE TABLE completed_rooms (
    room_nid integer PRIMARY KEY,
    -- The join since which they had been lacking.
    join_nid bigint NOT NULL,
    position bigint NOT NULL DEFAULT stream_position()
);
COMMENT ON TABLE completed_rooms IS
    'When the members came that a room had lacked, which clients that load members lazily need not be told. Bound: rooms.';
