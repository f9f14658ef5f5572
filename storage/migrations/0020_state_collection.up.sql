-- Collecting states that nothing refers to, and how tables are vacuumed.
--
-- A snapshot is referred to by its room, by state_history, by events (the state before them) and by snapshots that differ
-- from it. Who adds such a reference holds the lock of the room's row, but may have found the snapshot out in an earlier
-- transaction. So it is collected in two steps. It is marked (unreferenced_since) when nothing refers to it; derive_state
-- takes the mark away when it finds the snapshot again. Hours later it is removed under the lock of the room's row, if
-- the mark is still there and still nothing refers to it.

-- The same number for many events, one after the other, which takes few bytes for each.
CREATE INDEX events_state_id ON events (state_id) WHERE state_id IS NOT NULL;
CREATE INDEX state_history_state_id ON state_history (state_id);
CREATE INDEX state_snapshots_parent ON state_snapshots (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX state_snapshots_unreferenced ON state_snapshots (unreferenced_since) WHERE unreferenced_since IS NOT NULL;

-- What is stored of a room outside its history, for rooms that are entered: those events are no other index's.
CREATE INDEX events_unplaced ON events (room_nid, event_nid) WHERE topological IS NULL;

CREATE TABLE state_walk (
    -- Allows one row.
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    -- Snapshots below it have still to be looked at; 0 at the end.
    below_state_id bigint NOT NULL DEFAULT 0,
    -- When the walk began.
    started_at timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 50);
COMMENT ON TABLE state_walk IS 'How far the collection of states has come in its walk over all of them. Bound: one row.';
INSERT INTO state_walk DEFAULT VALUES;

-- Tables that grow and whose rows hardly ever change: a page that has become full is frozen at its first vacuum, so that
-- it need not be written again later, and soon, so that reading an index suffices.
ALTER TABLE events SET (autovacuum_freeze_min_age = 0, autovacuum_vacuum_insert_scale_factor = 0.02,
    autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE relations SET (autovacuum_freeze_min_age = 0, autovacuum_vacuum_insert_scale_factor = 0.05);
ALTER TABLE state_slots SET (autovacuum_freeze_min_age = 0, autovacuum_vacuum_insert_scale_factor = 0.05);
ALTER TABLE state_snapshots SET (autovacuum_freeze_min_age = 0, autovacuum_vacuum_insert_scale_factor = 0.05);
ALTER TABLE state_history SET (autovacuum_freeze_min_age = 0, autovacuum_vacuum_insert_scale_factor = 0.05);
ALTER TABLE membership_changes SET (autovacuum_freeze_min_age = 0, autovacuum_vacuum_insert_scale_factor = 0.05);

-- Tables whose rows are changed all the time: dead rows go soon. What the planner knows of them does not change with that.
ALTER TABLE rooms SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 2);
ALTER TABLE receipts SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 1);
ALTER TABLE presence SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 1);
ALTER TABLE presence_sources SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 1);
ALTER TABLE account_data SET (autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE devices SET (autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE device_list_changes SET (autovacuum_vacuum_scale_factor = 0.05);
-- Some room on each page, so that a changed entry stays where it is and in its index.
ALTER TABLE current_state SET (fillfactor = 90);

-- Tables through which rows pass: as many come as go. Their indexes are vacuumed before they have grown for good.
ALTER TABLE to_device_messages SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
ALTER TABLE event_push_exceptions SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
ALTER TABLE received_transactions SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
ALTER TABLE received_to_device SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
ALTER TABLE destination_queues SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
ALTER TABLE destination_edus SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
ALTER TABLE one_time_keys SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
