DROP FUNCTION newest_queued;
DROP TABLE edu_lags, edu_positions, destination_edus, destination_transactions, destination_queues;
