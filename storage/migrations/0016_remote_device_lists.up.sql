-- Device lists across servers: those of other servers' users, and what other servers are told of ours.

CREATE TABLE remote_device_lists (
    user_id text PRIMARY KEY,
    server_name text NOT NULL,
    -- The update that the list agrees with, in the server's own numbering; NULL before the list was first fetched.
    stream_id bigint,
    -- Whether no update is known to be missing.
    is_whole boolean NOT NULL DEFAULT false,
    -- Raised whenever something happens of which a fetch that has begun before may not know.
    generation bigint NOT NULL DEFAULT 0,
    -- The bound of the streams when the fetch began that the list comes from.
    fetched_position bigint,
    -- How often fetching has failed, and when (milliseconds) it is tried again.
    failures integer NOT NULL DEFAULT 0,
    retry_at_ts bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 70);
COMMENT ON TABLE remote_device_lists IS 'Device lists of other servers'' users. Bound: users with whom a room is shared and whose keys somebody has asked for; a row goes when no room is shared any more, by the follower of that and by the sweep of received things.';
CREATE INDEX remote_device_lists_due ON remote_device_lists (retry_at_ts) WHERE NOT is_whole;
CREATE INDEX remote_device_lists_failed ON remote_device_lists (server_name) WHERE NOT is_whole AND failures > 0;

CREATE TABLE remote_devices (
    user_id text NOT NULL REFERENCES remote_device_lists ON DELETE CASCADE,
    device_id text NOT NULL,
    -- The JSON object of the device's identity keys.
    keys text NOT NULL,
    display_name text,
    PRIMARY KEY (user_id, device_id)
);
COMMENT ON TABLE remote_devices IS 'Devices with keys of other servers'' users. Bound: a limit per list; removed with the list.';

CREATE TABLE remote_cross_signing_keys (
    user_id text NOT NULL REFERENCES remote_device_lists ON DELETE CASCADE,
    usage text NOT NULL,
    key text NOT NULL,
    PRIMARY KEY (user_id, usage)
);
COMMENT ON TABLE remote_cross_signing_keys IS 'Master and self-signing keys of other servers'' users. Bound: two per list; removed with the list.';

CREATE TABLE device_changes (
    user_id text NOT NULL,
    -- Empty for the user's cross-signing keys.
    device_id text NOT NULL,
    position bigint NOT NULL DEFAULT stream_position(),
    PRIMARY KEY (user_id, device_id)
) WITH (fillfactor = 70);
COMMENT ON TABLE device_changes IS 'Local devices and keys whose change other servers have still to be told of. Bound: devices; removed by the follower that tells.';
CREATE INDEX device_changes_position ON device_changes (position);

CREATE TABLE device_list_streams (
    user_id text PRIMARY KEY,
    -- The last update that was told, the one before it, and the device that it was about; 0 and NULL before the first.
    stream_id bigint NOT NULL DEFAULT 0,
    prev_id bigint,
    device_id text,
    position bigint NOT NULL DEFAULT stream_position()
) WITH (fillfactor = 70);
COMMENT ON TABLE device_list_streams IS 'What other servers were last told of the devices and keys of each local user. Bound: users.';
CREATE INDEX device_list_streams_position ON device_list_streams (position);

CREATE TABLE device_list_lags (
    destination text PRIMARY KEY,
    -- Raised each time that something more was not told.
    version bigint NOT NULL DEFAULT 0,
    -- What has been told to others from here on the server was not told.
    position bigint NOT NULL DEFAULT stream_position()
);
COMMENT ON TABLE device_list_lags IS 'Servers that could not be told of changed devices. Bound: servers that fail or have very much to read; a row goes when its server has been told.';
