-- History that is fetched from other servers: which gaps have been asked for in vain, and the states along the history.

ALTER TABLE missing_events
    -- How often nobody had the event, and until when nobody is asked for it again.
    ADD COLUMN failures integer NOT NULL DEFAULT 0,
    ADD COLUMN retry_at timestamptz NOT NULL DEFAULT '-infinity';

-- A state that derive_states makes: what it differs from (a snapshot, -n for the n-th state of the same call, NULL for the
-- empty state), and the events that stand in some slots (0: none), by slot in ascending order.
CREATE TYPE derived_state AS (base_id bigint, slot_ids integer[], event_nids bigint[]);

-- Finds or makes the snapshots of states that follow from each other; returns them in the order of the call.
CREATE FUNCTION derive_states(of_room_nid integer, states derived_state[]) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    one derived_state;
    of_base_id bigint;
    old_event_nids bigint[];
    state_ids bigint[] := '{}';
BEGIN
    PERFORM FROM rooms r WHERE r.room_nid = of_room_nid FOR NO KEY UPDATE;
    FOREACH one IN ARRAY states LOOP
        of_base_id := CASE WHEN one.base_id < 0 THEN state_ids[-one.base_id] ELSE one.base_id END;
        SELECT coalesce(array_agg(coalesce(held.event_nid, 0) ORDER BY changed.number), '{}') INTO old_event_nids
        FROM unnest(one.slot_ids) WITH ORDINALITY AS changed (slot_id, number)
        LEFT JOIN state_entries(of_base_id, one.slot_ids) AS held USING (slot_id);
        state_ids := state_ids
            || derive_state(of_room_nid, of_base_id, one.slot_ids, old_event_nids, one.event_nids);
    END LOOP;
    RETURN state_ids;
END
$$;
