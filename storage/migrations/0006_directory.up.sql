-- The room directory of this server: its aliases, and the rooms it lists in public.

CREATE TABLE room_aliases (
    alias text PRIMARY KEY,
    room_id text NOT NULL,
    creator text NOT NULL,
    created_ts bigint NOT NULL
);
COMMENT ON TABLE room_aliases IS 'Aliases of this server. Bound: made by users; swept with the room.';
CREATE INDEX room_aliases_room ON room_aliases (room_id);

CREATE TABLE published_rooms (
    room_id text NOT NULL,
    -- The network of an application service that lists the room; empty for the server's own list.
    appservice_id text NOT NULL DEFAULT '',
    network_id text NOT NULL DEFAULT '',
    PRIMARY KEY (room_id, appservice_id, network_id)
);
COMMENT ON TABLE published_rooms IS 'Rooms that the public directory lists. Bound: rooms; swept with the room.';
