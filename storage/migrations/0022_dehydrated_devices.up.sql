-- Devices without a session, which take messages for a user who has no other device left.

CREATE TABLE dehydrated_devices (
    user_id text PRIMARY KEY,
    device_id text NOT NULL,
    -- A JSON object: the device's private keys, encrypted by the client.
    device_data text NOT NULL,
    FOREIGN KEY (user_id, device_id) REFERENCES devices ON DELETE CASCADE
);
COMMENT ON TABLE dehydrated_devices IS 'Devices without a session, which take messages until a new device takes their place. Bound: one per user, 64 KiB each; removed with the device.';
