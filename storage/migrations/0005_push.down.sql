DROP TABLE event_push_exceptions, push_actions;
