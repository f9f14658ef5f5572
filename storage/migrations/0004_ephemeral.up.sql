-- What passes: read receipts, typing notifications, presence.
--
-- The tables of the last two are unlogged: nobody misses them after a crash, and they are written often.

CREATE TABLE receipts (
    room_nid integer NOT NULL,
    user_id text NOT NULL,
    receipt_type text NOT NULL,
    -- `main`, a thread's root, or empty for a receipt that regards no threads.
    thread_id text NOT NULL,
    event_id text NOT NULL,
    -- The order of the event, in which a receipt only goes forwards. Events of the stream are ordered by event_nid; those
    -- before them, which were fetched later, have 0 here and are ordered by topological. NULL: this server does not know
    -- the event (yet), on which a user of another server has put the receipt.
    event_nid bigint,
    topological bigint,
    receipt_ts bigint NOT NULL,
    position bigint NOT NULL DEFAULT stream_position(),
    PRIMARY KEY (room_nid, user_id, receipt_type, thread_id)
) WITH (fillfactor = 80);
COMMENT ON TABLE receipts IS 'Read receipts of local and remote users. Bound: members and the threads that they read; swept with the room.';
CREATE INDEX receipts_position ON receipts (position);
CREATE INDEX receipts_room ON receipts (room_nid, position);

CREATE UNLOGGED TABLE typing (
    room_nid integer NOT NULL,
    user_id text NOT NULL,
    is_typing boolean NOT NULL,
    expires_at timestamptz NOT NULL,
    -- When is_typing changed.
    position bigint NOT NULL DEFAULT stream_position(),
    PRIMARY KEY (room_nid, user_id)
) WITH (fillfactor = 50);
COMMENT ON TABLE typing IS 'Who is typing, or was a moment ago. Bound: an hour after the last keystroke; swept by the typing service.';
CREATE INDEX typing_expiry ON typing (expires_at);
CREATE INDEX typing_position ON typing (position);

CREATE UNLOGGED TABLE typing_rooms (
    room_nid integer PRIMARY KEY,
    position bigint NOT NULL DEFAULT stream_position()
) WITH (fillfactor = 50);
COMMENT ON TABLE typing_rooms IS 'When the list of those who type in a room last changed. Bound: rooms; swept with the room.';
CREATE INDEX typing_rooms_position ON typing_rooms (position);

CREATE UNLOGGED TABLE presence (
    user_id text PRIMARY KEY,
    presence text NOT NULL DEFAULT 'offline',
    status_msg text,
    last_active_ts bigint,
    currently_active boolean NOT NULL DEFAULT false,
    -- When something changed that others are told of; last_active_ts alone is not.
    position bigint NOT NULL DEFAULT stream_position()
) WITH (fillfactor = 50);
COMMENT ON TABLE presence IS 'The presence of local and remote users. Bound: users seen since the last crash.';
CREATE INDEX presence_position ON presence (position);
CREATE INDEX presence_online ON presence (last_active_ts) WHERE presence = 'online';

CREATE UNLOGGED TABLE presence_sources (
    user_id text NOT NULL,
    -- Empty for what another server tells of its user.
    device_id text NOT NULL,
    -- The process that sees the device; a device that several processes see has a row of each.
    process text NOT NULL,
    -- What the device asks for: online or unavailable. One that is offline has no row.
    presence text NOT NULL,
    -- What another server tells; NULL where it is computed here, of the user's last activity.
    currently_active boolean,
    -- A process that lives renews its rows long before.
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, device_id, process)
) WITH (fillfactor = 50);
COMMENT ON TABLE presence_sources IS 'What presence is made of: each device as a process sees it. Bound: expiry; swept by the presence service.';
CREATE INDEX presence_sources_expiry ON presence_sources (expires_at);
