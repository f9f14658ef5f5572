-- Which events use which media, so that what a redacted event showed can be removed, and the media of a room be listed.

CREATE TABLE media_events (
    event_nid bigint NOT NULL REFERENCES events ON DELETE CASCADE,
    room_nid integer NOT NULL,
    -- It has been decided whether the medium goes with the redacted event.
    settled boolean NOT NULL DEFAULT false,
    -- When it was learned that the event was redacted, in milliseconds; NULL while it shows the medium.
    redacted_ts bigint,
    server_name text NOT NULL,
    media_id text NOT NULL
);
CREATE INDEX media_events_by_event ON media_events (event_nid);
CREATE INDEX media_events_by_room ON media_events (room_nid);
CREATE INDEX media_events_by_media ON media_events (media_id);
CREATE INDEX media_events_redacted ON media_events (redacted_ts) WHERE redacted_ts IS NOT NULL AND NOT settled;
COMMENT ON TABLE media_events IS 'Media that events name, each once; written by triggers, in whatever way an event comes. Members with pictures of other servers do not count. Bound: 200 for each event; removed with it.';

-- Any text in an event that is an mxc URI as a whole counts, wherever it stands: pictures, files, thumbnails, stickers,
-- galleries, sets of emoticons. What is linked too much is only kept.
CREATE FUNCTION link_media(of_event_nid bigint, of_room_nid integer, of_type text, client_json text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    -- Large rooms have very many members; of each the first picture is looked at, which is most often somebody else's.
    IF of_type = 'm.room.member' AND NOT EXISTS (
        SELECT FROM local_media l
        WHERE l.media_id = split_part(split_part(split_part(client_json, '"mxc://', 2), '"', 1), '/', 2)
    ) THEN
        RETURN;
    END IF;
    -- Longer ids are none, and would not fit into an index.
    INSERT INTO media_events (event_nid, room_nid, server_name, media_id)
    SELECT DISTINCT of_event_nid, of_room_nid, uri[1], uri[2]
    FROM regexp_matches(client_json, '"mxc://([A-Za-z0-9.:\[\]-]+)/([A-Za-z0-9_-]+)"', 'g') AS uri
    WHERE length(uri[1]) <= 255 AND length(uri[2]) <= 255
    LIMIT 200;
END $$;

CREATE FUNCTION link_media_of_new_event() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM link_media(NEW.event_nid, NEW.room_nid, NEW.type, NEW.client_json);
    RETURN NULL;
END $$;

CREATE FUNCTION unlink_media_of_redacted_event() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE media_events SET redacted_ts = (extract(epoch FROM clock_timestamp()) * 1000)::bigint
    WHERE event_nid = NEW.event_nid AND redacted_ts IS NULL;
    RETURN NULL;
END $$;

-- The condition costs an event without media a look for a few characters in its text, and nothing else.
CREATE TRIGGER link_media_of_new_event AFTER INSERT ON events
    FOR EACH ROW WHEN (strpos(NEW.client_json, '"mxc://') > 0)
    EXECUTE FUNCTION link_media_of_new_event();
CREATE TRIGGER unlink_media_of_redacted_event AFTER UPDATE OF client_json ON events
    FOR EACH ROW WHEN (NEW.redacted_by IS NOT NULL AND strpos(OLD.client_json, '"mxc://') > 0)
    EXECUTE FUNCTION unlink_media_of_redacted_event();

DO $$
BEGIN
    PERFORM link_media(event_nid, room_nid, type, client_json) FROM events WHERE strpos(client_json, '"mxc://') > 0;
END $$;
