DROP FUNCTION unread_counts, add_push_exceptions;
DROP INDEX events_push_thread, events_push_highlight, events_push_redacted, events_sent;
DROP TABLE event_push_exceptions, push_actions, push_rules;
