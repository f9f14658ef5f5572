-- What this server knows of other servers: whether they can be reached, and their signing keys.

CREATE TABLE destinations (
    destination text PRIMARY KEY,
    -- Since when nothing but failures; NULL for a server that answers.
    failing_since_ts bigint,
    -- Before this time nothing is asked of it, unless somebody insists.
    retry_at_ts bigint NOT NULL DEFAULT 0,
    -- The pause that the next failure makes longer.
    backoff_ms bigint NOT NULL DEFAULT 0,
    -- About when it last answered; written once an hour at most.
    last_success_ts bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE destinations IS
    'Whether other servers can be reached. Bound: servers that this one has called; swept each day by the back-off, those that nobody called for a month.';

CREATE TABLE server_keys (
    server_name text NOT NULL,
    key_id text NOT NULL,
    -- The public key in unpadded base64.
    key text NOT NULL,
    -- When the server stopped using the key; NULL for one in use.
    expired_ts bigint,
    -- Until when the answer that named the key is good; of two answers the one that is good for longer counts.
    promised_until_ts bigint NOT NULL,
    fetched_ts bigint NOT NULL,
    -- That answer, signed by the server, in canonical JSON: a notary passes it on.
    answer text NOT NULL,
    PRIMARY KEY (server_name, key_id)
);
COMMENT ON TABLE server_keys IS
    'Signing keys of other servers. Bound: 100 keys of an answer; never swept, for old events are checked with old keys.';
