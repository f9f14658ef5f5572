DROP TRIGGER unlink_media_of_redacted_event ON events;
DROP TRIGGER link_media_of_new_event ON events;
DROP FUNCTION unlink_media_of_redacted_event();
DROP FUNCTION link_media_of_new_event();
DROP FUNCTION link_media(bigint, integer, text, text);
DROP TABLE media_events;
