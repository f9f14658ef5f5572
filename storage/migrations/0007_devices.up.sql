-- What is told to devices: messages to them, and whose list of devices has changed.

CREATE TABLE to_device_messages (
    user_id text NOT NULL,
    device_id text NOT NULL,
    position bigint NOT NULL DEFAULT stream_position(),
    serial bigint GENERATED ALWAYS AS IDENTITY,
    -- Type, sender and content.
    message text NOT NULL,
    PRIMARY KEY (user_id, device_id, position, serial)
);
COMMENT ON TABLE to_device_messages IS 'Messages that a device has not confirmed yet. Bound: senders'' rate; removed by the device''s next sync and with the device.';
CREATE INDEX to_device_messages_position ON to_device_messages (position);

CREATE TABLE device_list_changes (
    user_id text PRIMARY KEY,
    position bigint NOT NULL DEFAULT stream_position()
);
COMMENT ON TABLE device_list_changes IS 'When each user''s devices changed last. Bound: users.';
CREATE INDEX device_list_changes_position ON device_list_changes (position);
