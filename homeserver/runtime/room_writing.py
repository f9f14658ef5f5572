"""Builds what writes into rooms: the two ways of adding events, and what they share."""

from dataclasses import dataclass

from homeserver.core.signing import SigningKey
from homeserver.runtime.accounts import Means
from homeserver.runtime.other_servers import Remotes
from homeserver.services.rooms.append import Appender
from homeserver.services.rooms.append_remote import RemoteAppender
from homeserver.services.rooms.drafts import PushEvaluator
from homeserver.services.rooms.heads import Heads
from homeserver.services.rooms.lanes import Lanes
from homeserver.services.rooms.policy_servers import PolicyReview
from homeserver.services.rooms.resolution import StateResolver
from storage.state import StateStore


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomWriting:
    """What all writers of rooms share: whoever adds events, of this server or of others, does it with these."""

    heads: Heads
    lanes: Lanes
    states: StateStore
    resolver: StateResolver
    appender: Appender
    remote_appender: RemoteAppender
    policy: PolicyReview


def compose_room_writing(means: Means, *, key: SigningKey, push: PushEvaluator, remotes: Remotes) -> RoomWriting:
    """Builds what writes into rooms."""
    db, bus, clock, server_name = means.db, means.bus, means.clock, means.config.server_name
    heads, lanes, states = Heads(), Lanes(), StateStore()
    resolver = StateResolver(states=states)
    policy = PolicyReview(db=db, servers=remotes.policy_servers)
    return RoomWriting(
        policy=policy,
        heads=heads,
        lanes=lanes,
        states=states,
        resolver=resolver,
        appender=Appender(
            db=db,
            bus=bus,
            clock=clock,
            server_name=server_name,
            key=key,
            heads=heads,
            lanes=lanes,
            push=push,
            policy=policy,
        ),
        remote_appender=RemoteAppender(
            db=db,
            bus=bus,
            clock=clock,
            server_name=server_name,
            heads=heads,
            lanes=lanes,
            states=states,
            resolver=resolver,
            push=push,
        ),
    )
