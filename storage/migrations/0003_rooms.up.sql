-- Rooms, their events and their state.
--
-- Texts that repeat are integers inside the database: a room is a `room_nid`, an event an `event_nid`, a place in a
-- room's state (event type and state key) a `slot_id`. Each table says what bounds it.

CREATE TABLE rooms (
    room_nid integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    room_id text NOT NULL UNIQUE,
    room_version text NOT NULL,
    -- Raised by every change of the current state; who appends events says which version they were checked against.
    state_version bigint NOT NULL DEFAULT 0,
    -- The snapshot of the current state; NULL while this server is not in the room.
    state_id bigint,
    forward_extremities bigint[] NOT NULL DEFAULT '{}'
) WITH (fillfactor = 70);
COMMENT ON TABLE rooms IS 'One row per room that this server has ever known. Bound: rooms; swept by the deletion of a room.';

CREATE TABLE events (
    -- The order of arrival. Within one room it agrees with `position`, for the room row is locked while events are added.
    event_nid bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id text NOT NULL UNIQUE,
    room_nid integer NOT NULL,
    -- Where the event stands in the one stream that clients follow; NULL for what is not streamed: history fetched later,
    -- events outside the room's graph, rejected and soft-failed ones.
    position bigint,
    -- The order of history, computed here from prev_events and never taken from `depth`; NULL for events outside the graph.
    topological bigint,
    depth bigint NOT NULL,
    origin_server_ts bigint NOT NULL,
    type text NOT NULL,
    state_key text,
    sender text NOT NULL,
    -- The state before the event; NULL for events outside the graph.
    state_id bigint,
    -- Those that are known, as integers, for walking the graph.
    prev_event_nids bigint[] NOT NULL DEFAULT '{}',
    auth_event_nids bigint[] NOT NULL DEFAULT '{}',
    -- Why the event failed authorisation; rejected for good. NULL for accepted events.
    rejected text,
    soft_failed boolean NOT NULL DEFAULT false,
    redacted_by text,
    -- The root of the thread that the event belongs to.
    thread_root text,
    -- The client request that made the event: unique by the index below, and told to that device only.
    device_id text,
    transaction_id text,
    -- What the default push rules do with it for a member they treat like any other, if that is a notification: an
    -- entry of push_actions.
    push_actions_id smallint,
    -- How many of the room's streamed events up to this one have push_actions_id and belong to no thread; NULL for what
    -- is not streamed. So two rows tell how many there are in between.
    notifying_count integer,
    -- Raised by every change of the row, so that what is kept in memory elsewhere can be told from what holds.
    revision integer NOT NULL DEFAULT 0,
    -- The event as clients see it, and the rest of what servers exchange. Both together are the event; neither repeats
    -- the other.
    client_json text NOT NULL,
    federation_json text NOT NULL
);
COMMENT ON TABLE events IS 'Every event. Bound: history; swept by retention, purge and the deletion of a room.';
CREATE INDEX events_position ON events (position) WHERE position IS NOT NULL;
CREATE INDEX events_room_position ON events (room_nid, position, event_nid) WHERE position IS NOT NULL;
CREATE INDEX events_room_topological ON events (room_nid, topological, event_nid) WHERE topological IS NOT NULL;
-- Jumping to a date.
CREATE INDEX events_room_time ON events (room_nid, origin_server_ts, event_nid) WHERE topological IS NOT NULL;
CREATE UNIQUE INDEX events_transaction ON events (sender, device_id, room_nid, transaction_id, (type = 'm.room.redaction'))
    WHERE transaction_id IS NOT NULL;
-- The history of one place in the state: what preceded an event there, and what followed it.
CREATE INDEX events_state ON events (room_nid, type, state_key, event_nid) WHERE state_key IS NOT NULL;
CREATE INDEX events_redacted_by ON events (redacted_by) WHERE redacted_by IS NOT NULL;

-- An event with all that is needed to show it to clients.
CREATE VIEW stored_events AS
    SELECT e.event_nid, e.event_id, e.room_nid, r.room_id, e.position, e.topological, e.state_id, e.depth,
        e.origin_server_ts, e.type, e.state_key, e.sender, e.rejected, e.soft_failed, e.redacted_by, e.thread_root,
        e.device_id, e.transaction_id, e.push_actions_id, e.revision, e.client_json
    FROM events e JOIN rooms r USING (room_nid);

CREATE TABLE state_slots (
    slot_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    type text NOT NULL,
    state_key text NOT NULL,
    UNIQUE (type, state_key)
);
COMMENT ON TABLE state_slots IS 'Event types and state keys as integers. Bound: distinct pairs ever used.';

-- A snapshot is a whole state, immutable, stored as a difference to its parent. Differences grow like the digits of a
-- binary counter: one that has grown as large as half its parent's absorbs it, so a chain is logarithmic in the state's size
-- and an entry is rewritten a logarithmic number of times.
CREATE TABLE state_snapshots (
    state_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    room_nid integer NOT NULL,
    parent_id bigint,
    -- The sum of the hashes of all entries of the state (not of the difference): equal states are one row, however they
    -- came about.
    fingerprint bigint[] NOT NULL,
    -- How many entries the difference has; here so that it can be asked without reading a long one.
    entry_count integer NOT NULL,
    -- Slot and event of each entry that differs from the parent, by slot; event 0 says that the slot is empty.
    slot_ids integer[] NOT NULL,
    event_nids bigint[] NOT NULL,
    -- Since when nothing is known to refer to it; NULL for one in use, and for one that somebody has found again since.
    unreferenced_since timestamptz,
    UNIQUE (room_nid, fingerprint)
);
COMMENT ON TABLE state_snapshots IS 'States of rooms. Bound: changes of state; what nothing refers to is swept by the collection of states.';

CREATE TABLE current_state (
    room_nid integer NOT NULL,
    slot_id integer NOT NULL,
    event_nid bigint NOT NULL,
    PRIMARY KEY (room_nid, slot_id)
);
COMMENT ON TABLE current_state IS 'The entries of each room''s current state. Bound: state; swept with the room.';

CREATE TABLE state_history (
    room_nid integer NOT NULL,
    position bigint NOT NULL DEFAULT stream_position(),
    serial bigint GENERATED ALWAYS AS IDENTITY,
    state_id bigint NOT NULL,
    PRIMARY KEY (room_nid, position, serial)
);
COMMENT ON TABLE state_history IS 'Which snapshot was current from which position on. Bound: changes of state.';
CREATE INDEX state_history_position ON state_history (position);

CREATE TABLE memberships (
    user_id text NOT NULL,
    room_nid integer NOT NULL,
    membership text NOT NULL,
    event_nid bigint NOT NULL,
    sender text NOT NULL,
    -- For who is joined, the event that began it; a new name or avatar does not.
    joined_nid bigint,
    -- Set by /forget, cleared by the next membership.
    forgotten boolean NOT NULL DEFAULT false,
    position bigint NOT NULL DEFAULT stream_position(),
    PRIMARY KEY (user_id, room_nid)
);
COMMENT ON TABLE memberships IS 'The current membership of each user, local and remote, in each room. Bound: one row per pair.';
CREATE INDEX memberships_room ON memberships (room_nid, membership);

CREATE TABLE membership_changes (
    user_id text NOT NULL,
    position bigint NOT NULL DEFAULT stream_position(),
    serial bigint GENERATED ALWAYS AS IDENTITY,
    room_nid integer NOT NULL,
    membership text NOT NULL,
    event_nid bigint NOT NULL,
    PRIMARY KEY (user_id, position, serial)
);
COMMENT ON TABLE membership_changes IS 'Each change of a local user''s membership, so that a sync knows what held at its positions. Bound: member events of local users.';
CREATE INDEX membership_changes_position ON membership_changes (position);

-- What lists of rooms show, kept beside the current state that it is read from.
CREATE TABLE room_summaries (
    room_nid integer PRIMARY KEY,
    name text,
    topic text,
    avatar_url text,
    canonical_alias text,
    join_rule text,
    history_visibility text,
    guest_access text,
    room_type text,
    encryption text,
    joined_members integer NOT NULL DEFAULT 0,
    invited_members integer NOT NULL DEFAULT 0,
    local_joined_members integer NOT NULL DEFAULT 0
) WITH (fillfactor = 70);
COMMENT ON TABLE room_summaries IS 'One row per room that this server is or was in. Bound: rooms.';

CREATE TABLE relations (
    event_nid bigint PRIMARY KEY,
    room_nid integer NOT NULL,
    relates_to text NOT NULL,
    rel_type text NOT NULL,
    -- The key of an annotation.
    key text
);
COMMENT ON TABLE relations IS 'Events that relate to another by m.relates_to; removed when the event is redacted. Bound: events.';
CREATE INDEX relations_target ON relations (relates_to, rel_type, event_nid);
-- The threads of a room.
CREATE INDEX relations_threads ON relations (room_nid, relates_to) WHERE rel_type = 'm.thread';


-- The weight of one entry in the fingerprint of a state: three numbers of 62 bits, nothing for an empty slot. Outsiders do
-- not learn the integers that are hashed, so they cannot search for states that collide.
CREATE FUNCTION state_entry_weight(slot_id integer, event_nid bigint) RETURNS bigint[]
IMMUTABLE PARALLEL SAFE LANGUAGE sql AS $$
    -- One expression, without a query in it, is put into the statements that use it. What is there twice costs less than
    -- a query would.
    SELECT CASE WHEN event_nid = 0 THEN '{0,0,0}'::bigint[] ELSE ARRAY[
        ('x' || encode(substring(sha256(int4send(slot_id) || int8send(event_nid)) FROM 1 FOR 8), 'hex'))::bit(64)::bigint
            & 4611686018427387903,
        ('x' || encode(substring(sha256(int4send(slot_id) || int8send(event_nid)) FROM 9 FOR 8), 'hex'))::bit(64)::bigint
            & 4611686018427387903,
        ('x' || encode(substring(sha256(int4send(slot_id) || int8send(event_nid)) FROM 17 FOR 8), 'hex'))::bit(64)::bigint
            & 4611686018427387903
    ] END
$$;

-- The entries of a snapshot at some slots; empty slots are absent.
CREATE FUNCTION state_entries(of_state_id bigint, of_slot_ids integer[])
RETURNS TABLE (slot_id integer, event_nid bigint) STABLE LANGUAGE sql AS $$
    WITH RECURSIVE chain AS (
        SELECT s.parent_id, s.slot_ids, s.event_nids, 0 AS distance
        FROM state_snapshots s WHERE s.state_id = of_state_id
        UNION ALL
        SELECT s.parent_id, s.slot_ids, s.event_nids, chain.distance + 1
        FROM chain JOIN state_snapshots s ON s.state_id = chain.parent_id
    ), nearest AS (
        SELECT DISTINCT ON (entry.slot_id) entry.slot_id, entry.event_nid
        FROM chain, unnest(chain.slot_ids, chain.event_nids) AS entry (slot_id, event_nid)
        WHERE entry.slot_id = ANY (of_slot_ids)
        ORDER BY entry.slot_id, chain.distance
    )
    SELECT nearest.slot_id, nearest.event_nid FROM nearest WHERE nearest.event_nid <> 0
$$;

-- Finds or makes the snapshot that differs from `base_id` (NULL: from the empty state) in the given slots.
-- `old_event_nids` says what stands there in the base, `new_event_nids` what shall; 0 is an empty slot. The caller holds
-- the lock of the room's row.
CREATE FUNCTION derive_state(
    of_room_nid integer, base_id bigint, changed_slot_ids integer[], old_event_nids bigint[], new_event_nids bigint[]
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    lanes bigint[];
    old_weight bigint[];
    new_weight bigint[];
    base state_snapshots%ROWTYPE;
    ancestor_id bigint := base_id;
    own_slot_ids integer[] := changed_slot_ids;
    own_event_nids bigint[] := new_event_nids;
    place integer;
    found_id bigint;
BEGIN
    SELECT * INTO base FROM state_snapshots WHERE state_id = base_id;
    IF base_id IS NOT NULL AND base.state_id IS NULL THEN
        RAISE foreign_key_violation USING MESSAGE = 'The state has been collected, for nothing referred to it';
    END IF;
    IF cardinality(changed_slot_ids) = 1 THEN
        -- By far the most frequent case, without a query. Of numbers of 62 bits, the sum of two is no overflow.
        old_weight := state_entry_weight(changed_slot_ids[1], old_event_nids[1]);
        new_weight := state_entry_weight(changed_slot_ids[1], new_event_nids[1]);
        lanes := ARRAY[
            (coalesce(base.fingerprint[1], 0) + new_weight[1] - old_weight[1]) & 4611686018427387903,
            (coalesce(base.fingerprint[2], 0) + new_weight[2] - old_weight[2]) & 4611686018427387903,
            (coalesce(base.fingerprint[3], 0) + new_weight[3] - old_weight[3]) & 4611686018427387903
        ];
    ELSE
        lanes := base.fingerprint;
        SELECT ARRAY[
            mod(mod(coalesce(sum(n[1]::numeric - o[1]), 0) + coalesce(lanes[1], 0), 4611686018427387904) + 4611686018427387904, 4611686018427387904)::bigint,
            mod(mod(coalesce(sum(n[2]::numeric - o[2]), 0) + coalesce(lanes[2], 0), 4611686018427387904) + 4611686018427387904, 4611686018427387904)::bigint,
            mod(mod(coalesce(sum(n[3]::numeric - o[3]), 0) + coalesce(lanes[3], 0), 4611686018427387904) + 4611686018427387904, 4611686018427387904)::bigint
        ] INTO lanes
        FROM unnest(changed_slot_ids, old_event_nids, new_event_nids) AS change (slot_id, old_nid, new_nid),
            state_entry_weight(slot_id, old_nid) AS o, state_entry_weight(slot_id, new_nid) AS n;
    END IF;

    SELECT state_id INTO found_id FROM state_snapshots WHERE room_nid = of_room_nid AND fingerprint = lanes;
    IF FOUND THEN
        -- The caller may be about to refer to it.
        UPDATE state_snapshots SET unreferenced_since = NULL
        WHERE state_id = found_id AND unreferenced_since IS NOT NULL;
        RETURN found_id;
    END IF;

    WHILE base.state_id IS NOT NULL AND 2 * cardinality(own_slot_ids) >= base.entry_count LOOP
        IF cardinality(own_slot_ids) = 1 AND own_event_nids[1] <> 0 THEN
            -- Likewise: one entry is put into its place.
            place := width_bucket(own_slot_ids[1], base.slot_ids);
            IF base.slot_ids[place] = own_slot_ids[1] THEN
                base.event_nids[place] := own_event_nids[1];
                own_slot_ids := base.slot_ids;
                own_event_nids := base.event_nids;
            ELSE
                own_slot_ids := base.slot_ids[:place] || own_slot_ids || base.slot_ids[place + 1:];
                own_event_nids := base.event_nids[:place] || own_event_nids || base.event_nids[place + 1:];
            END IF;
        ELSE
            SELECT coalesce(array_agg(slot_id ORDER BY slot_id), '{}'), coalesce(array_agg(event_nid ORDER BY slot_id), '{}')
            INTO own_slot_ids, own_event_nids
            FROM (
                SELECT DISTINCT ON (slot_id) slot_id, event_nid
                FROM (
                    SELECT slot_id, event_nid, 0 AS distance
                    FROM unnest(own_slot_ids, own_event_nids) AS own (slot_id, event_nid)
                    UNION ALL
                    SELECT slot_id, event_nid, 1
                    FROM unnest(base.slot_ids, base.event_nids) AS absorbed (slot_id, event_nid)
                ) AS both_differences
                ORDER BY slot_id, distance
            ) AS difference
            -- Without a parent there is nothing that an empty slot would have to hide.
            WHERE event_nid <> 0 OR base.parent_id IS NOT NULL;
        END IF;
        ancestor_id := base.parent_id;
        EXIT WHEN ancestor_id IS NULL;
        SELECT * INTO base FROM state_snapshots WHERE state_id = ancestor_id;
    END LOOP;

    INSERT INTO state_snapshots (room_nid, parent_id, fingerprint, entry_count, slot_ids, event_nids)
    VALUES (of_room_nid, ancestor_id, lanes, cardinality(own_slot_ids), own_slot_ids, own_event_nids)
    RETURNING state_id INTO found_id;
    RETURN found_id;
END
$$;

-- What append_events takes. A reference to an event is its event_nid, or -n for the n-th event of the same call.
CREATE TYPE new_event AS (
    event_id text,
    type text,
    state_key text,
    sender text,
    depth bigint,
    origin_server_ts bigint,
    client_json text,
    federation_json text,
    prev_events bigint[],
    auth_events bigint[],
    rejected text,
    soft_failed boolean,
    thread_root text,
    device_id text,
    transaction_id text,
    push_actions_id smallint,
    -- The event is stored already, outside the graph, in this row of this revision; NULL for one that is new.
    outlier_nid bigint,
    outlier_revision integer,
    -- It was redacted before it came.
    redacted_by text,
    -- It holds the graph together and is shown to nobody.
    is_hidden boolean
);
-- A change of the current state; event 0 empties the slot. `membership` is NULL but for members.
CREATE TYPE state_change AS (
    type text,
    state_key text,
    event bigint,
    membership text,
    sender text,
    is_local boolean
);
CREATE TYPE summary_change AS (name text, value text);
CREATE TYPE new_relation AS (event bigint, relates_to text, rel_type text, key text);
-- A stored event that gets another text, if its revision is still this one; `redacted_by` is NULL if it is not redacted now.
CREATE TYPE replaced_event AS (
    event_nid bigint,
    revision integer,
    redacted_by text,
    client_json text,
    federation_json text
);
CREATE TYPE new_push_exception AS (event bigint, user_id text, actions text, notify boolean, highlight boolean);

-- Gives numbers to those slots that have none yet.
CREATE FUNCTION add_slots(state_changes state_change[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    change state_change;
    new_types text[] := '{}';
    new_state_keys text[] := '{}';
BEGIN
    FOREACH change IN ARRAY state_changes LOOP
        PERFORM FROM state_slots s WHERE s.type = change.type AND s.state_key = change.state_key;
        IF NOT FOUND THEN
            new_types := new_types || change.type;
            new_state_keys := new_state_keys || change.state_key;
        END IF;
    END LOOP;
    IF cardinality(new_types) > 0 THEN
        -- In one order everywhere, for two rooms may add the same slots at the same time.
        INSERT INTO state_slots (type, state_key)
        SELECT n.type, n.state_key FROM unnest(new_types, new_state_keys) AS n (type, state_key)
        ORDER BY n.type, n.state_key
        ON CONFLICT DO NOTHING;
    END IF;
END
$$;

-- The memberships that follow from changes of the current state, and the counts of members in the room's summary.
CREATE FUNCTION change_memberships(of_room_nid integer, nids bigint[], state_changes state_change[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    change state_change;
    nid bigint;
    old_membership text;
    joined integer := 0;
    invited integer := 0;
    local_joined integer := 0;
BEGIN
    -- One after the other: statements over single rows keep their plans, those over arrays are planned at each call.
    FOREACH change IN ARRAY state_changes LOOP
        CONTINUE WHEN change.membership IS NULL;
        nid := CASE WHEN change.event < 0 THEN nids[-change.event] ELSE change.event END;
        SELECT m.membership INTO old_membership
        FROM memberships m WHERE m.user_id = change.state_key AND m.room_nid = of_room_nid;
        joined := joined + (change.membership = 'join')::integer - coalesce(old_membership = 'join', false)::integer;
        invited := invited + (change.membership = 'invite')::integer - coalesce(old_membership = 'invite', false)::integer;
        IF change.is_local THEN
            local_joined := local_joined + (change.membership = 'join')::integer
                - coalesce(old_membership = 'join', false)::integer;
        END IF;

        INSERT INTO memberships (user_id, room_nid, membership, event_nid, sender, joined_nid)
        VALUES (change.state_key, of_room_nid, change.membership, nid, change.sender,
            CASE WHEN change.membership = 'join' THEN nid END)
        ON CONFLICT (user_id, room_nid) DO UPDATE SET
            membership = excluded.membership,
            joined_nid = CASE WHEN excluded.membership = 'join' THEN coalesce(memberships.joined_nid, excluded.joined_nid) END,
            -- A membership that resolution took away has no event: the last one stays.
            event_nid = coalesce(nullif(excluded.event_nid, 0), memberships.event_nid),
            sender = excluded.sender,
            forgotten = false,
            position = stream_position();

        IF change.is_local THEN
            INSERT INTO membership_changes (user_id, room_nid, membership, event_nid)
            VALUES (change.state_key, of_room_nid, change.membership, nid);
        END IF;
    END LOOP;
    IF joined <> 0 OR invited <> 0 OR local_joined <> 0 THEN
        UPDATE room_summaries s SET
            joined_members = s.joined_members + joined,
            invited_members = s.invited_members + invited,
            local_joined_members = s.local_joined_members + local_joined
        WHERE s.room_nid = of_room_nid;
    END IF;
END
$$;

-- Sets columns of a room's summary by their names.
CREATE FUNCTION change_summary(of_room_nid integer, summary_changes summary_change[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    names text[] := ARRAY (SELECT c.name FROM unnest(summary_changes) WITH ORDINALITY AS c ORDER BY c.ordinality);
    new_values text[] := ARRAY (SELECT c.value FROM unnest(summary_changes) WITH ORDINALITY AS c ORDER BY c.ordinality);
BEGIN
    UPDATE room_summaries s SET
        name = CASE WHEN 'name' = ANY (names) THEN new_values[array_position(names, 'name')] ELSE s.name END,
        topic = CASE WHEN 'topic' = ANY (names) THEN new_values[array_position(names, 'topic')] ELSE s.topic END,
        avatar_url = CASE WHEN 'avatar_url' = ANY (names) THEN new_values[array_position(names, 'avatar_url')]
            ELSE s.avatar_url END,
        canonical_alias = CASE WHEN 'canonical_alias' = ANY (names)
            THEN new_values[array_position(names, 'canonical_alias')] ELSE s.canonical_alias END,
        join_rule = CASE WHEN 'join_rule' = ANY (names) THEN new_values[array_position(names, 'join_rule')]
            ELSE s.join_rule END,
        history_visibility = CASE WHEN 'history_visibility' = ANY (names)
            THEN new_values[array_position(names, 'history_visibility')] ELSE s.history_visibility END,
        guest_access = CASE WHEN 'guest_access' = ANY (names) THEN new_values[array_position(names, 'guest_access')]
            ELSE s.guest_access END,
        room_type = CASE WHEN 'room_type' = ANY (names) THEN new_values[array_position(names, 'room_type')]
            ELSE s.room_type END,
        encryption = CASE WHEN 'encryption' = ANY (names) THEN new_values[array_position(names, 'encryption')]
            ELSE s.encryption END
    WHERE s.room_nid = of_room_nid;
END
$$;

-- Adds events to a room, each the successor of the one before, with all that follows from them. It writes nothing and
-- returns `is_appended` = false if the room is not as the caller saw it.
--
-- state_before_id      the state before the one event, from elsewhere; NULL: the events follow the current state and
--                      become part of it
-- expected_extremities the room's forward extremities must be among these; NULL: whatever they are
-- state_changes        how the current state changes, one entry for each slot
-- is_state_forked      raises state_version even if the current state stays as it is
-- missing_event_ids    previous events of the first event that are not stored: history has a gap there
-- awaited_target       what the one event redacts, if that is not stored; it must still not be
-- reviewed_redactions  which of the redactions that wait for these events have been looked at; NULL for events made here,
--                      which nothing can have waited for
CREATE FUNCTION append_events(
    of_room_nid integer,
    expected_state_version bigint,
    expected_extremities bigint[],
    state_before_id bigint,
    is_state_forked boolean,
    new_events new_event[],
    state_changes state_change[],
    summary_changes summary_change[],
    new_relations new_relation[],
    replaced_events replaced_event[],
    push_exceptions new_push_exception[],
    missing_event_ids text[],
    awaited_target text,
    reviewed_redactions bigint[],
    OUT is_appended boolean,
    OUT position_written bigint,
    OUT state_version bigint,
    OUT state_id bigint,
    OUT event_nids bigint[],
    OUT extremity_nids bigint[],
    OUT extremity_ids text[],
    OUT extremity_depths bigint[]
)
-- All its statements go by indexes, whatever the values are: that they were planned for the first values of each session
-- would only cost.
SET plan_cache_mode = force_generic_plan
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    room rooms%ROWTYPE;
    one new_event;
    line_id bigint;
    last_position bigint;
    last_topological bigint;
    notifying integer;
    is_ignored boolean := false;
    is_placed boolean := false;
    number integer := 0;
    slot integer;
    old_event_nid bigint;
    nid bigint;
    nids bigint[] := '{}';
    last_accepted bigint;
    last_number integer;
    is_accepted boolean;
    is_shown boolean;
    covered bigint[];
    slots integer[];
    new_nids bigint[];
    old_nids bigint[];
BEGIN
    SELECT * INTO room FROM rooms r WHERE r.room_nid = of_room_nid FOR NO KEY UPDATE;
    is_appended := room.state_version = expected_state_version
        AND (expected_extremities IS NULL OR room.forward_extremities <@ expected_extremities);
    IF is_appended AND cardinality(replaced_events) > 0 THEN
        is_appended := NOT EXISTS (
            SELECT FROM unnest(replaced_events) n JOIN events e USING (event_nid) WHERE e.revision <> n.revision
        );
    END IF;
    -- Who has missed so much would write into the past: on ends of the graph that many events have followed since.
    IF is_appended AND state_before_id IS NULL THEN
        is_appended := new_events[1].prev_events && room.forward_extremities OR cardinality(room.forward_extremities) = 0;
        -- Apart, for an expression with a query in it is planned at each call.
        IF NOT is_appended THEN
            is_appended :=
                (SELECT max(e.topological) FROM events e WHERE e.event_nid = ANY (new_events[1].prev_events)) + 20
                    >= (SELECT max(e.topological) FROM events e WHERE e.event_nid = ANY (room.forward_extremities));
        END IF;
    END IF;
    IF is_appended AND state_before_id IS NOT NULL THEN
        -- If it was found out long ago, it may have been collected.
        PERFORM FROM state_snapshots s WHERE s.state_id = state_before_id;
        is_appended := FOUND;
    END IF;
    IF is_appended AND reviewed_redactions IS NOT NULL THEN
        is_appended := is_arrival_as_seen(of_room_nid, new_events, awaited_target, reviewed_redactions);
    END IF;
    IF is_appended IS NOT TRUE THEN
        is_appended := false;
        RETURN;
    END IF;
    -- Positions follow the order of event_nid. But who waits for the room's row may get its transaction's id while others,
    -- who began later, are faster: it would write into the past, and must try again in another transaction.
    position_written := stream_position();
    SELECT e.position, e.notifying_count INTO last_position, notifying
    FROM events e WHERE e.room_nid = of_room_nid AND e.position IS NOT NULL
    ORDER BY e.position DESC, e.event_nid DESC LIMIT 1;
    IF last_position > position_written THEN
        is_appended := false;
        RETURN;
    END IF;
    notifying := coalesce(notifying, 0);

    IF cardinality(state_changes) > 0 THEN
        PERFORM add_slots(state_changes);
    END IF;

    -- What comes now stands at the end of history, wherever in the graph it belongs.
    last_topological := coalesce((
        SELECT e.topological FROM events e WHERE e.room_nid = of_room_nid AND e.topological IS NOT NULL
        ORDER BY e.topological DESC LIMIT 1
    ), 0);
    IF cardinality(missing_event_ids) > 0 THEN
        -- Room for what lies in the gap.
        last_topological := last_topological + 1048576;
    END IF;
    line_id := coalesce(state_before_id, room.state_id);
    IF line_id IS NULL THEN
        line_id := derive_state(of_room_nid, NULL, '{}', '{}', '{}');
    END IF;
    FOREACH one IN ARRAY new_events LOOP
        number := number + 1;
        is_accepted := one.rejected IS NULL AND NOT one.soft_failed;
        is_shown := is_accepted AND NOT one.is_hidden;
        IF is_shown THEN
            last_topological := last_topological + 1;
            IF one.push_actions_id IS NOT NULL THEN
                notifying := notifying + (one.thread_root IS NULL)::integer;
                is_ignored := is_ignored OR EXISTS (SELECT FROM ignored_users i WHERE i.ignored_user_id = one.sender);
            END IF;
        END IF;
        IF one.outlier_nid IS NULL THEN
            INSERT INTO events (
                event_id, room_nid, position, topological, depth, origin_server_ts, type, state_key, sender, state_id,
                prev_event_nids, auth_event_nids, rejected, soft_failed, redacted_by, thread_root, device_id,
                transaction_id, push_actions_id, notifying_count, client_json, federation_json
            ) VALUES (
                one.event_id, of_room_nid,
                CASE WHEN is_shown THEN position_written END,
                CASE WHEN is_shown THEN last_topological END,
                one.depth, one.origin_server_ts, one.type, one.state_key, one.sender, line_id,
                ARRAY (SELECT CASE WHEN n < 0 THEN nids[-n] ELSE n END FROM unnest(one.prev_events) AS n),
                ARRAY (SELECT CASE WHEN n < 0 THEN nids[-n] ELSE n END FROM unnest(one.auth_events) AS n),
                one.rejected, one.soft_failed, one.redacted_by, one.thread_root, one.device_id, one.transaction_id,
                CASE WHEN is_shown THEN one.push_actions_id END, CASE WHEN is_shown THEN notifying END,
                one.client_json, one.federation_json
            ) RETURNING event_nid INTO nid;
        ELSE
            -- It keeps its number, which states refer to, and so has no place in the stream: that would be out of order.
            -- Clients are told of it by the state that it changes, and by history.
            nid := one.outlier_nid;
            is_placed := true;
            UPDATE events e SET topological = CASE WHEN is_shown THEN last_topological END, state_id = line_id,
                prev_event_nids = one.prev_events, rejected = coalesce(e.rejected, one.rejected),
                soft_failed = one.soft_failed, redacted_by = coalesce(e.redacted_by, one.redacted_by),
                thread_root = one.thread_root, client_json = one.client_json, federation_json = one.federation_json,
                revision = e.revision + 1
            WHERE e.event_nid = nid;
        END IF;
        nids := nids || nid;
        IF is_accepted THEN
            last_accepted := nid;
            last_number := number;
        END IF;
        IF is_accepted AND one.state_key IS NOT NULL AND state_before_id IS NULL THEN
            SELECT s.slot_id INTO slot FROM state_slots s WHERE s.type = one.type AND s.state_key = one.state_key;
            SELECT c.event_nid INTO old_event_nid
            FROM current_state c WHERE c.room_nid = of_room_nid AND c.slot_id = slot;
            line_id := derive_state(of_room_nid, line_id, ARRAY[slot], ARRAY[coalesce(old_event_nid, 0)], ARRAY[nid]);
            INSERT INTO current_state (room_nid, slot_id, event_nid) VALUES (of_room_nid, slot, nid)
            ON CONFLICT (room_nid, slot_id) DO UPDATE SET event_nid = excluded.event_nid;
        END IF;
    END LOOP;

    -- What was known before may be in the current state, and have another text now.
    IF cardinality(state_changes) > 0 OR is_state_forked OR is_placed THEN
        state_version := room.state_version + 1;
    ELSE
        state_version := room.state_version;
    END IF;
    IF cardinality(state_changes) = 0 THEN
        state_id := coalesce(room.state_id, line_id);
    ELSE
        IF state_before_id IS NULL THEN
            state_id := line_id;
        ELSE
            SELECT array_agg(s.slot_id), array_agg(coalesce(c.event_nid, 0)),
                array_agg(CASE WHEN n.event < 0 THEN nids[-n.event] ELSE n.event END)
            INTO slots, old_nids, new_nids
            FROM unnest(state_changes) n
            JOIN state_slots s ON s.type = n.type AND s.state_key = n.state_key
            LEFT JOIN current_state c ON c.room_nid = of_room_nid AND c.slot_id = s.slot_id;
            state_id := derive_state(of_room_nid, room.state_id, slots, old_nids, new_nids);
            DELETE FROM current_state c USING unnest(slots, new_nids) AS n (slot_id, event_nid)
            WHERE c.room_nid = of_room_nid AND c.slot_id = n.slot_id AND n.event_nid = 0;
            INSERT INTO current_state (room_nid, slot_id, event_nid)
            SELECT of_room_nid, n.slot_id, n.event_nid FROM unnest(slots, new_nids) AS n (slot_id, event_nid)
            WHERE n.event_nid <> 0
            ON CONFLICT (room_nid, slot_id) DO UPDATE SET event_nid = excluded.event_nid;
        END IF;
        INSERT INTO state_history (room_nid, state_id) VALUES (of_room_nid, state_id);
        PERFORM change_memberships(of_room_nid, nids, state_changes);
    END IF;
    IF cardinality(summary_changes) > 0 THEN
        PERFORM change_summary(of_room_nid, summary_changes);
    END IF;

    IF last_accepted IS NULL THEN
        extremity_nids := room.forward_extremities;
    ELSE
        covered := new_events[1].prev_events;
        IF reviewed_redactions IS NOT NULL THEN
            covered := covered_events(covered);
        END IF;
        extremity_nids := ARRAY (SELECT n FROM unnest(room.forward_extremities) AS n WHERE n <> ALL (covered));
        IF reviewed_redactions IS NULL OR cardinality(extremity_nids) = 0 THEN
            extremity_nids := extremity_nids || last_accepted;
        -- What was missing is followed by what it was missed for.
        ELSIF NOT EXISTS (
            SELECT FROM missing_events m
            WHERE m.room_nid = of_room_nid AND m.event_id = new_events[cardinality(new_events)].event_id
        ) THEN
            extremity_nids := extremity_nids || last_accepted;
        END IF;
    END IF;
    IF reviewed_redactions IS NOT NULL THEN
        PERFORM note_arrival(
            of_room_nid, nids, new_events, missing_event_ids, awaited_target, reviewed_redactions
        );
    END IF;
    UPDATE rooms r SET forward_extremities = extremity_nids, state_version = append_events.state_version,
        state_id = append_events.state_id
    WHERE r.room_nid = of_room_nid;

    IF cardinality(new_relations) > 0 THEN
        INSERT INTO relations (event_nid, room_nid, relates_to, rel_type, key)
        SELECT nids[-n.event], of_room_nid, n.relates_to, n.rel_type, n.key FROM unnest(new_relations) n;
    END IF;
    IF cardinality(replaced_events) > 0 THEN
        UPDATE events e SET redacted_by = coalesce(n.redacted_by, e.redacted_by), client_json = n.client_json,
            federation_json = n.federation_json, revision = e.revision + 1,
            thread_root = CASE WHEN n.redacted_by IS NULL THEN e.thread_root END,
            -- Of the main timeline it stays, for notifying_count has counted it.
            push_actions_id = CASE WHEN n.redacted_by IS NULL OR e.thread_root IS NULL THEN e.push_actions_id END
        FROM unnest(replaced_events) n WHERE e.event_nid = n.event_nid;
        DELETE FROM relations r USING unnest(replaced_events) n
        WHERE r.event_nid = n.event_nid AND n.redacted_by IS NOT NULL;
        UPDATE event_push_exceptions x SET redacted = true FROM unnest(replaced_events) n
        WHERE x.event_nid = n.event_nid AND x.actions IS NOT NULL AND n.redacted_by IS NOT NULL;
    END IF;
    IF cardinality(push_exceptions) > 0 OR is_ignored THEN
        PERFORM add_push_exceptions(of_room_nid, nids, new_events, push_exceptions);
    END IF;

    event_nids := nids;
    IF extremity_nids = ARRAY[last_accepted] THEN
        extremity_ids := ARRAY[new_events[last_number].event_id];
        extremity_depths := ARRAY[new_events[last_number].depth];
        RETURN;
    END IF;
    SELECT array_agg(e.event_nid ORDER BY e.event_nid), array_agg(e.event_id ORDER BY e.event_nid),
        array_agg(e.depth ORDER BY e.event_nid)
    INTO extremity_nids, extremity_ids, extremity_depths
    FROM events e WHERE e.event_nid = ANY (extremity_nids);
END
$$;

-- Makes a room of its first events. It writes nothing and returns no `room_nid` if there is such a room.
CREATE FUNCTION create_room(
    of_room_id text,
    of_room_version text,
    new_events new_event[],
    state_changes state_change[],
    summary_changes summary_change[],
    new_relations new_relation[],
    push_exceptions new_push_exception[],
    OUT room_nid integer,
    OUT position_written bigint,
    OUT state_version bigint,
    OUT state_id bigint,
    OUT event_nids bigint[],
    OUT extremity_nids bigint[],
    OUT extremity_ids text[],
    OUT extremity_depths bigint[]
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO rooms AS r (room_id, room_version) VALUES (of_room_id, of_room_version)
    ON CONFLICT (room_id) DO NOTHING RETURNING r.room_nid INTO room_nid;
    IF room_nid IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO room_summaries (room_nid) VALUES (create_room.room_nid);
    SELECT a.position_written, a.state_version, a.state_id, a.event_nids, a.extremity_nids, a.extremity_ids,
        a.extremity_depths
    INTO position_written, state_version, state_id, event_nids, extremity_nids, extremity_ids, extremity_depths
    FROM append_events(
        create_room.room_nid, 0, '{}', NULL, false, new_events, state_changes, summary_changes, new_relations, '{}',
        push_exceptions, '{}', NULL, NULL
    ) AS a;
END
$$;
