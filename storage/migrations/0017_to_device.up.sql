-- Messages to devices: which requests and which messages of other servers have been taken.

CREATE TABLE to_device_requests (
    user_id text NOT NULL,
    -- Empty for a session without a device.
    device_id text NOT NULL,
    type text NOT NULL,
    transaction_id text NOT NULL,
    received_ts bigint NOT NULL,
    PRIMARY KEY (user_id, device_id, type, transaction_id)
);
COMMENT ON TABLE to_device_requests IS 'Requests to send messages to devices, so that a repeated one does nothing. Bound: a day; swept by the statement that inserts.';
CREATE INDEX to_device_requests_received ON to_device_requests (received_ts);

CREATE TABLE received_to_device (
    origin text NOT NULL,
    message_id text NOT NULL,
    received_ts bigint NOT NULL,
    PRIMARY KEY (origin, message_id)
);
COMMENT ON TABLE received_to_device IS 'Messages of other servers, so that a repeated one does nothing. Bound: a month; swept by the statement that inserts.';
CREATE INDEX received_to_device_received ON received_to_device (received_ts);
