DROP FUNCTION create_room, append_events, change_summary, change_memberships, add_slots, derive_state, state_entries, state_entry_weight;
DROP TYPE new_push_exception, replaced_event, new_relation, summary_change, state_change, new_event;
DROP VIEW stored_events;
DROP TABLE relations, room_summaries, membership_changes, memberships, state_history, current_state, state_snapshots,
    state_slots, events, rooms;
