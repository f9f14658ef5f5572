DROP TABLE relations, room_summaries, membership_changes, memberships, state_history, current_state, state_snapshots,
    state_slots, events, rooms;
