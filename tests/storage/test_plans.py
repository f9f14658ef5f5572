"""How PostgreSQL runs the statements where there is much: by an index, whatever it believes of the parameters."""

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import asyncpg

from storage.statements import statement_names

# Rows of a server that has lived for a while; what is not here is empty.
FILL: Final = """
    INSERT INTO users (user_id, created_ts) SELECT '@u' || n || ':a', 0 FROM generate_series(1, 6000) n;
    INSERT INTO devices (user_id, device_id, created_ts, position)
    SELECT '@u' || n || ':a', 'D', 0, n FROM generate_series(1, 6000) n;
    INSERT INTO rooms (room_id, room_version, state_id) SELECT '!r' || n, '12', n FROM generate_series(1, 20000) n;
    INSERT INTO room_summaries (room_nid, local_joined_members, encryption)
    SELECT n, 3, CASE WHEN n % 2 = 0 THEN 'm.megolm' END FROM generate_series(1, 20000) n;
    INSERT INTO events (event_id, room_nid, position, topological, depth, origin_server_ts, type, state_key, sender,
        state_id, transaction_id, device_id, push_actions_id, notifying_count, client_json, federation_json)
    SELECT '$e' || n, 1 + n % 6000, n, n, n, n, CASE WHEN n % 3 = 0 THEN 'm.room.member' ELSE 'm.room.message' END,
        CASE WHEN n % 3 = 0 THEN '@u' || n % 6000 || ':a' END, '@u' || n % 6000 || ':a', 1 + n / 4,
        CASE WHEN n % 3 > 0 THEN 't' || n END, CASE WHEN n % 3 > 0 THEN 'D' END, CASE WHEN n % 3 > 0 THEN 1 END, n,
        repeat('x', 300), repeat('y', 300)
    FROM generate_series(1, 40000) n;
    INSERT INTO state_slots (type, state_key) SELECT 'm.room.member', '@u' || n || ':a' FROM generate_series(1, 6000) n;
    INSERT INTO state_snapshots (room_nid, fingerprint, entry_count, slot_ids, event_nids, parent_id)
    SELECT 1 + n % 6000, ARRAY[n, n, n], 2, ARRAY[n % 6000, 6000], ARRAY[n, n], nullif(n / 2, 0)
    FROM generate_series(1, 10000) n;
    INSERT INTO current_state SELECT 1 + n % 6000, 1 + n / 6000, n FROM generate_series(1, 30000) n;
    INSERT INTO state_history (room_nid, position, state_id) SELECT 1 + n % 6000, n, n FROM generate_series(1, 10000) n;
    INSERT INTO memberships (user_id, room_nid, membership, event_nid, sender, joined_nid, position)
    SELECT '@u' || n % 6000 || CASE WHEN n % 2 = 0 THEN ':a' ELSE ':b' END, 1 + n % 19997, 'join', n, '@u1:a', n, n
    FROM generate_series(1, 30000) n ON CONFLICT DO NOTHING;
    INSERT INTO membership_changes (user_id, position, room_nid, membership, event_nid)
    SELECT '@u' || n % 6000 || ':a', n, 1 + n % 5987, 'join', n FROM generate_series(1, 20000) n;
    INSERT INTO receipts (room_nid, user_id, receipt_type, thread_id, event_id, event_nid, receipt_ts, position)
    SELECT 1 + n % 5987, '@u' || n % 6000 || ':a', 'm.read', 'main', '$e' || n, n, n, n FROM generate_series(1, 20000) n
    ON CONFLICT DO NOTHING;
    INSERT INTO presence (user_id, position) SELECT '@u' || n || ':a', n FROM generate_series(1, 6000) n;
    INSERT INTO typing_rooms (room_nid, position) SELECT n, n FROM generate_series(1, 6000) n;
    INSERT INTO account_data (user_id, room_id, type, content, position)
    SELECT '@u' || 1 + n % 6000 || ':a', '!r' || n % 7, 't' || n % 5, '{}', n FROM generate_series(0, 9999) n
    ON CONFLICT DO NOTHING;
    INSERT INTO to_device_messages (user_id, device_id, position, message)
    SELECT '@u' || n % 6000 || ':a', 'D', n, '{}' FROM generate_series(1, 10000) n;
    INSERT INTO to_device_requests SELECT '@u' || n || ':a', 'D', 't', 't', n FROM generate_series(1, 6000) n;
    INSERT INTO device_list_changes SELECT '@u' || n || ':a', n FROM generate_series(1, 6000) n;
    INSERT INTO one_time_keys (user_id, device_id, algorithm, key_id, key)
    SELECT '@u' || n % 600 || ':a', 'D', 'signed_curve25519', n, '{}' FROM generate_series(1, 10000) n;
    INSERT INTO event_push_exceptions (user_id, room_nid, event_nid, actions, notify, highlight, notify_delta,
        highlight_delta, notify_total, highlight_total)
    SELECT '@u' || n % 6000 || ':a', 1 + n % 6000, n, '[]', n % 2 = 0, false, 0, 0, 0, 0
    FROM generate_series(1, 10000) n;
    INSERT INTO received_transactions (origin, transaction_id, response, received_at)
    SELECT 's' || n % 50, n, '{}', now() - n * interval '1 minute' FROM generate_series(1, 6000) n;
    INSERT INTO remote_device_lists (user_id, server_name, retry_at_ts, is_whole)
    SELECT '@u' || n || ':b', 'b', 0, true FROM generate_series(1, 6000) n;
    INSERT INTO remote_devices (user_id, device_id, keys)
    SELECT '@u' || n || ':b', 'D', '{}' FROM generate_series(1, 6000) n;
    INSERT INTO relations (event_nid, room_nid, relates_to, rel_type)
    SELECT n, 1 + n % 6000, '$e' || n - 1, 'm.annotation' FROM generate_series(2, 10000) n;
"""
LARGE: Final = frozenset(
    {
        "users",
        "devices",
        "rooms",
        "room_summaries",
        "events",
        "state_slots",
        "state_snapshots",
        "current_state",
        "state_history",
        "memberships",
        "membership_changes",
        "receipts",
        "presence",
        "typing_rooms",
        "account_data",
        "to_device_messages",
        "relations",
        "to_device_requests",
        "device_list_changes",
        "one_time_keys",
        "event_push_exceptions",
        "received_transactions",
        "remote_device_lists",
        "remote_devices",
    }
)

# What goes through a whole table, or all of an index, and why it may.
EXPECTED: Final[Mapping[str, str]] = {
    "push_exceptions.DELETE_EXPIRED_EXCEPTIONS": "a sweep, which is planned anew for its small limit",
    "received_transactions.DELETE_OLD_TRANSACTIONS": "likewise",
    "remote_device_lists.DELETE_LEFT_LISTS": "looks at all lists, every ten minutes",
    "room_import.RESET_ROOM": "for a room that is of another version than the invitation said",
    "state_collection.START_WALK": "the last entry of the index",
}
SELECT_PARTIAL_INDEXES: Final = """
    SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indpred IS NOT NULL
"""


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


def _goes_through_all(node: Mapping[str, Any], *, partial_indexes: Collection[str]) -> bool:
    """Whether a step of a plan reads all of a table; an index of few of its rows may be read as a whole."""
    if node["Node Type"] in ("Index Scan", "Index Only Scan"):
        return "Index Cond" not in node and node["Index Name"] not in partial_indexes
    return bool(node["Node Type"] == "Seq Scan")


async def test_no_statement_goes_through_a_whole_table(database_url: str) -> None:
    """By the plan for any parameters, which PostgreSQL takes when it has run a statement a few times."""
    connection = await asyncpg.connect(database_url, statement_cache_size=0)
    whole: dict[str, set[str]] = {}
    try:
        await connection.execute(FILL)
        await connection.execute("ANALYZE")
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        partial_indexes = [row["relname"] for row in await connection.fetch(SELECT_PARTIAL_INDEXES)]
        for statement, name in statement_names().items():
            parameters = len((await connection.prepare(statement)).get_parameters())
            await connection.execute(f"PREPARE one AS {statement}")
            arguments = f"({', '.join(['NULL'] * parameters)})" if parameters else ""
            plans = json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE one{arguments}"))
            await connection.execute("DEALLOCATE one")
            for node in _nodes(plans[0]["Plan"]):
                is_large = node.get("Relation Name") in LARGE
                if is_large and _goes_through_all(node, partial_indexes=partial_indexes):
                    whole.setdefault(name, set()).add(node["Relation Name"])
    finally:
        await connection.close()
    assert {name: tables for name, tables in sorted(whole.items()) if name not in EXPECTED} == {}
    assert EXPECTED.keys() <= whole.keys(), "These do not any more"
