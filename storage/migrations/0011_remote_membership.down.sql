DROP TABLE invited_states, partial_rooms, completed_rooms;
