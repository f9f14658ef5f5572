-- What is to be sent to other servers.
--
-- A server that answers is sent each event. For one that does not, a room's row keeps only the newest few: it fetches the
-- rest when it is back. So an outage of weeks costs a row per room.

CREATE TABLE destination_queues (
    destination text NOT NULL,
    room_nid integer NOT NULL,
    -- The events that wait, oldest first; never empty.
    event_nids bigint[] NOT NULL,
    PRIMARY KEY (destination, room_nid)
) WITH (fillfactor = 50);
COMMENT ON TABLE destination_queues IS
    'Events that wait to be sent. Bound: rooms that a server is in, 1000 events each, 20 if it fails; a row goes when it is sent.';

-- A list of events as it waits: whole as long as it is not too long, else only the newest.
CREATE FUNCTION newest_queued(nids bigint[], nids_max integer, kept integer) RETURNS bigint[] IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE WHEN cardinality(nids) <= nids_max THEN nids ELSE nids[cardinality(nids) - kept + 1:] END
$$;

-- The transaction that is being sent, or is to be sent again: with the same id, it has the same content.
CREATE TABLE destination_transactions (
    destination text PRIMARY KEY,
    transaction_id text NOT NULL,
    origin_server_ts bigint NOT NULL,
    event_nids bigint[] NOT NULL,
    edu_ids bigint[] NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE destination_transactions IS 'The transaction that is sent to a server until it has taken it. Bound: one per server; a row goes when the server has taken the transaction.';

-- EDUs that must arrive, and in order, such as messages to devices. Typing, receipts and presence are no such: they are
-- read from their own tables when they are sent.
CREATE TABLE destination_edus (
    edu_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    destination text NOT NULL,
    edu_type text NOT NULL,
    -- Of EDUs with the same type and key only the newest waits. NULL: each is sent.
    replace_key text,
    -- A JSON object.
    content text NOT NULL,
    queued_ts bigint NOT NULL
);
COMMENT ON TABLE destination_edus IS
    'EDUs that wait to be sent, in order. Bound: 10000 for each server, and 30 days; swept each hour by the queues.';
CREATE INDEX destination_edus_destination ON destination_edus (destination, edu_id);
CREATE UNIQUE INDEX destination_edus_replace ON destination_edus (destination, edu_type, replace_key)
    WHERE replace_key IS NOT NULL;
CREATE INDEX destination_edus_queued ON destination_edus (queued_ts);

-- Ends transactions that servers have taken: what was in them waits no longer. Of the others nothing is changed. Rows are
-- locked in the order of their keys, before they are looked at, for more may be queued at any moment.
CREATE FUNCTION complete_transactions(of_destinations text[], transaction_ids text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    done record;
BEGIN
    FOR done IN
        WITH ended AS (
            DELETE FROM destination_transactions t
            USING unnest(of_destinations, transaction_ids) AS taken (destination, transaction_id)
            WHERE t.destination = taken.destination AND t.transaction_id = taken.transaction_id
            RETURNING t.destination, t.event_nids, t.edu_ids
        )
        SELECT * FROM ended ORDER BY destination
    LOOP
        IF cardinality(done.event_nids) > 0 THEN
            PERFORM FROM destination_queues q
            WHERE q.destination = done.destination AND q.event_nids && done.event_nids
            ORDER BY q.room_nid FOR UPDATE;
            DELETE FROM destination_queues q
            WHERE q.destination = done.destination AND q.event_nids <@ done.event_nids;
            UPDATE destination_queues q
            SET event_nids = ARRAY(
                SELECT nid FROM unnest(q.event_nids) WITH ORDINALITY AS waiting (nid, number)
                WHERE nid <> ALL (done.event_nids) ORDER BY number
            )
            WHERE q.destination = done.destination AND q.event_nids && done.event_nids;
        END IF;
        IF cardinality(done.edu_ids) > 0 THEN
            DELETE FROM destination_edus e WHERE e.edu_id = ANY (done.edu_ids);
        END IF;
    END LOOP;
END
$$;

-- Typing, receipts and presence: up to where their streams have been told. Destinations are shared out among the worker
-- processes by the hash of their name; each share has a position.
CREATE TABLE edu_positions (
    share smallint PRIMARY KEY,
    position bigint NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE edu_positions IS 'Up to where typing, receipts and presence have been told. Bound: the number of shares.';

-- Servers that could not be told: what has changed since this position is told when they are back.
CREATE TABLE edu_lags (
    destination text PRIMARY KEY,
    position bigint NOT NULL
);
COMMENT ON TABLE edu_lags IS 'From where on servers have missed typing, receipts and presence. Bound: servers that fail; a row goes when its server is back.';
