-- Backups of the keys with which clients decrypt messages; the clients encrypt them, this server only keeps them.

CREATE TABLE key_backups (
    user_id text NOT NULL,
    version bigint NOT NULL,
    algorithm text NOT NULL,
    -- A JSON object.
    auth_data text NOT NULL,
    -- Raised by every change of the keys.
    etag bigint NOT NULL DEFAULT 0,
    key_count bigint NOT NULL DEFAULT 0,
    -- The keys are gone, but the number is never given out again.
    deleted boolean NOT NULL DEFAULT false,
    PRIMARY KEY (user_id, version)
) WITH (fillfactor = 70);
COMMENT ON TABLE key_backups IS 'Backups of each user. Bound: the times that a user has made one; the newest that is not deleted is the current one.';

CREATE TABLE key_backup_keys (
    user_id text NOT NULL,
    version bigint NOT NULL,
    room_id text NOT NULL,
    session_id text NOT NULL,
    first_message_index bigint NOT NULL,
    forwarded_count bigint NOT NULL,
    is_verified boolean NOT NULL,
    -- A JSON object.
    session_data text NOT NULL,
    PRIMARY KEY (user_id, version, room_id, session_id)
);
COMMENT ON TABLE key_backup_keys IS 'The keys in backups. Bound: sessions of the user''s encrypted rooms; removed with the backup.';
