DROP FUNCTION derive_states;
DROP TYPE derived_state;
ALTER TABLE missing_events DROP COLUMN failures, DROP COLUMN retry_at;
