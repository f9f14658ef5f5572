DROP INDEX memberships_room_position;
DROP TABLE signed_users, key_signatures, cross_signing_keys, key_count_changes, fallback_keys, one_time_keys, device_keys;
