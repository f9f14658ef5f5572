-- Guests that nobody uses any more are found without looking at every account.

CREATE INDEX users_guests ON users (created_ts) WHERE is_guest AND deactivated_ts IS NULL;
COMMENT ON TABLE users IS 'One row per local account. Bound: accounts ever made; guests that nobody has used for long (registration.guest_unused_ms in the configuration) are deactivated each hour, their names stay.';
