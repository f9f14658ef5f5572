-- The public keys of end-to-end encryption: of devices, for single use, for cross-signing, and signatures between them.

CREATE TABLE device_keys (
    user_id text NOT NULL,
    device_id text NOT NULL,
    -- The JSON object that the device has uploaded, with its own signatures.
    keys text NOT NULL,
    PRIMARY KEY (user_id, device_id)
);
COMMENT ON TABLE device_keys IS 'Identity keys of devices of local users. Bound: devices; removed with the device.';

CREATE TABLE one_time_keys (
    user_id text NOT NULL,
    device_id text NOT NULL,
    algorithm text NOT NULL,
    key_id text NOT NULL,
    key text NOT NULL,
    -- The order in which they came and are given out.
    serial bigint GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (user_id, device_id, algorithm, key_id)
);
COMMENT ON TABLE one_time_keys IS 'Keys that nobody has claimed yet. Bound: a limit per device and algorithm; removed by claims and with the device.';
CREATE INDEX one_time_keys_order ON one_time_keys (user_id, device_id, algorithm, serial);

CREATE TABLE fallback_keys (
    user_id text NOT NULL,
    device_id text NOT NULL,
    algorithm text NOT NULL,
    key_id text NOT NULL,
    key text NOT NULL,
    -- Whether it has been given out.
    used boolean NOT NULL DEFAULT false,
    PRIMARY KEY (user_id, device_id, algorithm)
);
COMMENT ON TABLE fallback_keys IS 'What is given out when the one-time keys are spent. Bound: one per device and algorithm, and a limit of algorithms; removed with the device.';

CREATE TABLE key_count_changes (
    user_id text NOT NULL,
    device_id text NOT NULL,
    position bigint NOT NULL DEFAULT stream_position(),
    PRIMARY KEY (user_id, device_id)
) WITH (fillfactor = 70);
COMMENT ON TABLE key_count_changes IS 'When the number of a device''s one-time or unused fallback keys changed last. Bound: devices; removed with the device.';
CREATE INDEX key_count_changes_position ON key_count_changes (position);

CREATE TABLE cross_signing_keys (
    user_id text NOT NULL,
    usage text NOT NULL,
    public_key text NOT NULL,
    -- The JSON object that the user has uploaded.
    key text NOT NULL,
    PRIMARY KEY (user_id, usage)
);
COMMENT ON TABLE cross_signing_keys IS 'Cross-signing keys of local users. Bound: three per user.';

CREATE TABLE key_signatures (
    -- The key that is signed: a device's by the device id, a master key by itself.
    user_id text NOT NULL,
    key_id text NOT NULL,
    signer_id text NOT NULL,
    signer_key_id text NOT NULL,
    signature text NOT NULL,
    PRIMARY KEY (user_id, key_id, signer_id, signer_key_id)
);
COMMENT ON TABLE key_signatures IS 'Signatures that were added to keys later. Bound: signers of each key; removed with the device, or when the key or the signer''s key is replaced.';
CREATE INDEX key_signatures_signer ON key_signatures (signer_id, signer_key_id);

CREATE TABLE signed_users (
    signer_id text NOT NULL,
    -- Whose master key the signer has signed with the user-signing key, which only the signer's own devices may see.
    user_id text NOT NULL,
    position bigint NOT NULL DEFAULT stream_position(),
    PRIMARY KEY (signer_id, user_id)
);
COMMENT ON TABLE signed_users IS 'Which users each user has verified, and when that was last told. Bound: one row per pair.';
CREATE INDEX signed_users_position ON signed_users (position);

-- Who has come to or left a room since a position.
CREATE INDEX memberships_room_position ON memberships (room_nid, position);
