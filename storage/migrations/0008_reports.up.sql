-- What users report to the administrators of their server.

CREATE TABLE reports (
    report_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_ts bigint NOT NULL,
    reporter text NOT NULL,
    -- What is reported: a user, or a room, or an event of a room; only ever as text, for it may be gone one day.
    user_id text,
    room_id text,
    event_id text,
    reason text,
    -- From -100 (most offensive) to 0; only older clients give one.
    score smallint,
    CHECK ((user_id IS NULL) <> (room_id IS NULL) AND (event_id IS NULL OR room_id IS NOT NULL))
);
COMMENT ON TABLE reports IS 'What users report to the administrators of the server. Bound: the rate limit of reports; never swept.';
