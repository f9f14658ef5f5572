"""Bundled aggregations: what the children of an event say about it, for one reader.

https://spec.matrix.org/v1.19/client-server-api/#aggregations-of-child-events
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from homeserver.core.ids import EventId
from homeserver.core.relations import ThreadSummary, bundle_relations
from homeserver.core.requester import Requester
from homeserver.core.visibility import visible_spans
from homeserver.services.rooms.access import RoomAccess
from homeserver.services.rooms.unsigned import splice_unsigned
from storage import aggregations
from storage.account_data import ignored_users
from storage.aggregations import Span, ThreadCounts
from storage.database import Connection
from storage.events import StoredEvent, list_events
from storage.visibility_changes import list_visibility_changes


class Aggregations:
    """Reads the bundled aggregations of a page of events, with a fixed number of statements."""

    def __init__(self, *, access: RoomAccess) -> None:
        self._access = access

    async def bundle(
        self, conn: Connection, events: Sequence[StoredEvent], requester: Requester
    ) -> Mapping[EventId, dict[str, Any]]:
        """`unsigned.m.relations` of each event that has any.

        Children that the reader may not see, and those of users that it ignores, are left out.
        """
        parents = {event.event_id: event for event in events if event.state_key is None}
        if not parents:
            return {}
        threads, references = await self._threads_and_references(conn, parents, requester)
        latest = await list_events(conn, [thread.latest_event_nid for thread in threads.values()])
        latest_by_nid = {event.event_nid: event for event in await self._visible(conn, latest, requester)}
        replacements = await self._replacements(conn, [*parents.values(), *latest_by_nid.values()], requester)
        bundles = {}
        for event_id, event in parents.items():
            thread = threads.get(event_id)
            summary = None
            if thread is not None and thread.latest_event_nid in latest_by_nid:
                latest_event = latest_by_nid[thread.latest_event_nid]
                own = bundle_relations(
                    is_state=False,
                    is_redacted=latest_event.redacted_by is not None,
                    replacement=replacements.get(latest_event.event_id),
                )
                summary = ThreadSummary(
                    latest_event=_spliced(latest_event, {"m.relations": own} if own else {}),
                    count=thread.count,
                    current_user_participated=thread.is_participant,
                )
            bundle = bundle_relations(
                is_state=False,
                is_redacted=event.redacted_by is not None,
                replacement=replacements.get(event_id),
                thread=summary,
                references=references.get(event_id, ()),
            )
            if bundle:
                bundles[event_id] = bundle
        return bundles

    async def _threads_and_references(
        self, conn: Connection, events: Mapping[EventId, StoredEvent], requester: Requester
    ) -> tuple[Mapping[EventId, ThreadCounts], Mapping[EventId, Sequence[EventId]]]:
        """What the reader sees of the threads of events, and of the references to them."""
        parents = await aggregations.list_parents(conn, events.keys())
        if not parents:
            return {}, {}
        reader = requester.user_id
        rooms = await list_visibility_changes(conn, {events[each].room_nid for each in parents}, user_id=reader)
        seen = [
            Span(room_nid, first, last)
            for room_nid, changes in rooms.items()
            for first, last in visible_spans(changes.visibilities, changes.memberships)
        ]
        ignored = await ignored_users(conn, reader)
        threads = await aggregations.find_threads(conn, parents, reader=reader, ignored_users=ignored, seen=seen)
        references = await aggregations.find_references(conn, parents, ignored_users=ignored, seen=seen)
        return threads, references

    async def _replacements(
        self, conn: Connection, events: Sequence[StoredEvent], requester: Requester
    ) -> Mapping[EventId, Any]:
        """The most recent visible replacement of each event, ready to be encoded."""
        found = await aggregations.find_replacements(conn, {event.event_id for event in events})
        children = await list_events(conn, set(found.values()))
        visible = {event.event_nid: event for event in await self._visible(conn, children, requester)}
        return {
            event_id: _spliced(visible[event_nid], {}) for event_id, event_nid in found.items() if event_nid in visible
        }

    async def _visible(
        self, conn: Connection, events: Sequence[StoredEvent], requester: Requester
    ) -> Sequence[StoredEvent]:
        return await self._access.filter_visible(conn, requester.user_id, events) if events else ()


def _spliced(event: StoredEvent, unsigned: Mapping[str, Any]) -> orjson.Fragment:
    return orjson.Fragment(splice_unsigned(event.client_json, unsigned) if unsigned else event.client_json)
