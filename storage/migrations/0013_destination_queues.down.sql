DROP FUNCTION complete_transactions, newest_queued;
DROP TABLE edu_lags, edu_positions, destination_edus, destination_transactions, destination_queues;
