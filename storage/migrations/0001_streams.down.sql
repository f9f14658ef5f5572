DROP TABLE follower_positions, leases;
DROP FUNCTION rebase_streams(bigint);
DROP FUNCTION largest_position();
DROP FUNCTION stream_bound();
DROP FUNCTION stream_position();
DROP FUNCTION stream_offset();
