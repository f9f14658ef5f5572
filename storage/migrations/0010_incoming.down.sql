DROP FUNCTION store_outliers, note_arrival, names_previous, is_arrival_as_seen, covered_events;
DROP TABLE received_transactions, relayed_events, postponed_events, pending_redactions, missing_events;
