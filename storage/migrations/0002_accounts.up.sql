-- Accounts: users, their devices and sessions, and what they keep about themselves.
--
-- Secrets that this server gives out (tokens, session identifiers) are stored as SHA-256 only. Rows with `expires_ts`
-- (milliseconds since the epoch) are swept by the statement that inserts into the same table.

CREATE TABLE users (
    user_id text PRIMARY KEY,
    -- An argon2id hash; NULL: no password opens this account.
    password_hash text,
    is_guest boolean NOT NULL DEFAULT false,
    is_admin boolean NOT NULL DEFAULT false,
    -- What kind of account operators say it is (`bot`, `support`); NULL for people.
    user_type text,
    appservice_id text,
    created_ts bigint NOT NULL,
    locked boolean NOT NULL DEFAULT false,
    suspended boolean NOT NULL DEFAULT false,
    -- NULL while the account lives. A deactivated name is never given out again.
    deactivated_ts bigint,
    erased boolean NOT NULL DEFAULT false,
    -- Which version of which policy document the user accepted when registering, as JSON.
    accepted_terms text
);
COMMENT ON TABLE users IS 'One row per local account. Bound: accounts ever made.';

CREATE TABLE devices (
    user_id text NOT NULL REFERENCES users ON DELETE CASCADE,
    device_id text NOT NULL,
    display_name text,
    created_ts bigint NOT NULL,
    -- Written at most every few minutes.
    last_seen_ts bigint,
    last_seen_ip text,
    last_seen_user_agent text,
    -- When the device was made or renamed.
    position bigint NOT NULL DEFAULT stream_position(),
    PRIMARY KEY (user_id, device_id)
) WITH (fillfactor = 80);
COMMENT ON TABLE devices IS 'The devices of local users. Bound: logins; removed by logout.';
CREATE INDEX devices_position ON devices (position);

CREATE TABLE sessions (
    session_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id text NOT NULL REFERENCES users ON DELETE CASCADE,
    -- NULL for a session that an administrator opened in the user's name.
    device_id text,
    created_ts bigint NOT NULL,
    FOREIGN KEY (user_id, device_id) REFERENCES devices ON DELETE CASCADE
);
COMMENT ON TABLE sessions IS 'What a login opens and a logout ends. Bound: one per device, and those of administrators.';
CREATE INDEX sessions_device ON sessions (user_id, device_id);

-- Each issue of tokens for a session: by login, then by every refresh.
CREATE TABLE token_pairs (
    pair_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session_id bigint NOT NULL REFERENCES sessions ON DELETE CASCADE,
    -- The pair whose refresh token was exchanged for this one; NULL for the first of a session.
    parent_id bigint,
    -- The hash of the secret inside the access token: the database alone is not enough to make one.
    access_hash bytea NOT NULL,
    -- NULL: the access token does not expire.
    access_expires_ts bigint,
    -- NULL: the client does not use refresh tokens.
    refresh_hash bytea UNIQUE,
    refresh_expires_ts bigint,
    created_ts bigint NOT NULL,
    -- Whether one of the pair's tokens has been presented, which ends its parent's refresh token.
    used boolean NOT NULL,
    -- When that happened to one of this pair's successors.
    superseded_ts bigint
);
COMMENT ON TABLE token_pairs IS 'Each issue of tokens for a session. Bound: a few per session; a refresh removes those that have had their time.';
CREATE INDEX token_pairs_session ON token_pairs (session_id);
CREATE INDEX token_pairs_parent ON token_pairs (parent_id) WHERE parent_id IS NOT NULL;

CREATE TABLE token_keys (
    key_id text PRIMARY KEY,
    -- The seed of an Ed25519 key.
    private_key bytea NOT NULL,
    created_ts bigint NOT NULL
);
COMMENT ON TABLE token_keys IS 'Keys that sign access tokens; the newest signs. Bound: rotations; deleting one logs out what it signed.';

CREATE TABLE login_tokens (
    token_hash bytea PRIMARY KEY,
    user_id text NOT NULL REFERENCES users ON DELETE CASCADE,
    expires_ts bigint NOT NULL
);
COMMENT ON TABLE login_tokens IS 'Tokens for m.login.token, each good for one login. Bound: expiry.';
CREATE INDEX login_tokens_expiry ON login_tokens (expires_ts);

CREATE TABLE openid_tokens (
    token_hash bytea PRIMARY KEY,
    user_id text NOT NULL REFERENCES users ON DELETE CASCADE,
    expires_ts bigint NOT NULL
);
COMMENT ON TABLE openid_tokens IS 'Tokens with which others may verify who somebody is. Bound: expiry.';
CREATE INDEX openid_tokens_expiry ON openid_tokens (expires_ts);

CREATE TABLE registration_nonces (
    nonce_hash bytea PRIMARY KEY,
    expires_ts bigint NOT NULL
);
COMMENT ON TABLE registration_nonces IS 'Nonces of registration by shared secret, each good for one attempt. Bound: expiry.';
CREATE INDEX registration_nonces_expiry ON registration_nonces (expires_ts);

CREATE TABLE registration_tokens (
    token text PRIMARY KEY,
    -- How many accounts it may make; NULL: any number.
    uses_allowed integer,
    completed integer NOT NULL DEFAULT 0,
    expires_ts bigint
);
COMMENT ON TABLE registration_tokens IS 'Tokens that allow to register. Bound: made and removed by administrators.';

CREATE TABLE uia_sessions (
    session_hash bytea PRIMARY KEY,
    -- What the session may be used for, by whom, with which parameters; it serves nothing else.
    operation text NOT NULL,
    user_id text REFERENCES users ON DELETE CASCADE,
    parameters_hash bytea NOT NULL,
    completed text[] NOT NULL DEFAULT '{}',
    -- Whom a stage has authenticated, where the request itself names nobody.
    authenticated_user_id text,
    registration_token text,
    -- Registration only: what the client asked for, without the password but with its hash, as JSON.
    registration text,
    -- Registration only: the account that was made, so that a repeated request answers the same.
    registered_user_id text,
    expires_ts bigint NOT NULL
);
COMMENT ON TABLE uia_sessions IS 'User-interactive authentications in progress. Bound: expiry.';
CREATE INDEX uia_sessions_expiry ON uia_sessions (expires_ts);
CREATE INDEX uia_sessions_registration_token ON uia_sessions (registration_token) WHERE registration_token IS NOT NULL;

CREATE TABLE profile_fields (
    user_id text NOT NULL REFERENCES users ON DELETE CASCADE,
    name text NOT NULL,
    -- JSON; NULL: the field has been removed, which followers must learn of.
    value text,
    position bigint NOT NULL DEFAULT stream_position(),
    PRIMARY KEY (user_id, name)
);
COMMENT ON TABLE profile_fields IS 'The profiles of local users. Bound: 64 KiB per user, 300 names.';
CREATE INDEX profile_fields_position ON profile_fields (position);

CREATE TABLE account_data (
    user_id text NOT NULL REFERENCES users ON DELETE CASCADE,
    -- Empty for what is not about one room.
    room_id text NOT NULL,
    type text NOT NULL,
    -- A JSON object.
    content text NOT NULL,
    position bigint NOT NULL DEFAULT stream_position(),
    PRIMARY KEY (user_id, room_id, type)
);
COMMENT ON TABLE account_data IS 'What clients keep for their users. Bound: one row per user, room and type.';
CREATE INDEX account_data_user_position ON account_data (user_id, position);
CREATE INDEX account_data_position ON account_data (position);

-- What m.ignored_user_list says, by user, so that it can be asked in both directions.
CREATE TABLE ignored_users (
    user_id text NOT NULL REFERENCES users ON DELETE CASCADE,
    ignored_user_id text NOT NULL,
    PRIMARY KEY (user_id, ignored_user_id)
);
COMMENT ON TABLE ignored_users IS 'What m.ignored_user_list says, by user. Bound: the size of that account data.';
CREATE INDEX ignored_users_ignored ON ignored_users (ignored_user_id);

CREATE TABLE filters (
    user_id text NOT NULL REFERENCES users ON DELETE CASCADE,
    filter_id integer NOT NULL,
    -- The same definition is stored once.
    definition_hash bytea NOT NULL,
    definition text NOT NULL,
    PRIMARY KEY (user_id, filter_id),
    UNIQUE (user_id, definition_hash)
);
COMMENT ON TABLE filters IS 'Filters that clients have defined. Bound: 1000 definitions per user.';

CREATE TABLE pending_departures (
    user_id text PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    requested_ts bigint NOT NULL
);
COMMENT ON TABLE pending_departures IS 'Deactivated users who must still leave their rooms. Bound: deactivations; swept when it is done.';

-- Names of guests, who are the only accounts with numbers for names.
CREATE SEQUENCE guest_numbers;
