COMMENT ON TABLE users IS 'One row per local account. Bound: accounts ever made.';
DROP INDEX users_guests;
