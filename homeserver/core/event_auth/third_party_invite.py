"""The authorization rule for invitations that grew out of an `m.room.third_party_invite` (rule 5.4.1 of version 12).

https://spec.matrix.org/v1.19/client-server-api/#third-party-invites
"""

from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from homeserver.core.errors import Forbidden, InvalidParam
from homeserver.core.event_auth.auth_state import AuthState
from homeserver.core.pdu import Pdu
from homeserver.core.signing import VerifyKey, signature_key_ids, verify_json

# One identity server signs, and two or three keys are offered. An event is large enough to name hundreds of both, whose
# combinations would take minutes to verify.
_SIGNATURES_MAX: Final = 16
_PUBLIC_KEYS_MAX: Final = 16

_FROM_URL_SAFE = str.maketrans("-_", "+/")


def check_third_party_invite(pdu: Pdu, room: AuthState, *, target: str) -> None:
    """Checks an invitation whose content has `third_party_invite`.

    Only the first 16 keys and 16 signatures (by their names) are considered.

    Raises:
        Forbidden: the rule rejects the event.
    """
    # 5.4.1.1
    if room.membership_of(target) == "ban":
        raise Forbidden("The invited user is banned from the room")
    # 5.4.1.2
    invite = pdu.content["third_party_invite"]
    signed = invite.get("signed") if isinstance(invite, Mapping) else None
    if not isinstance(signed, Mapping):
        raise Forbidden("The third-party invite is not signed")
    # 5.4.1.3
    mxid, token = signed.get("mxid"), signed.get("token")
    if not isinstance(mxid, str) or not isinstance(token, str):
        raise Forbidden("The third-party invite names no user or no token")
    # 5.4.1.4
    if mxid != target:
        raise Forbidden("The third-party invite is for another user")
    # 5.4.1.5
    offer = room.event(("m.room.third_party_invite", token))
    if offer is None:
        raise Forbidden("The room knows no third-party invite with this token")
    # 5.4.1.6
    if offer.sender != pdu.sender:
        raise Forbidden("The third-party invite is of another user")
    # 5.4.1.7, 5.4.1.8
    if not _is_signed(signed, _public_keys(offer.content)):
        raise Forbidden("The third-party invite is not signed with one of its keys")


def _public_keys(content: Mapping[str, Any]) -> list[str]:
    """The keys that an `m.room.third_party_invite` offers, in base64 of the standard alphabet."""
    further = content.get("public_keys")
    entries = further if isinstance(further, list) else []
    keys = [content.get("public_key"), *(entry.get("public_key") for entry in entries if isinstance(entry, Mapping))]
    return [key.translate(_FROM_URL_SAFE) for key in keys if isinstance(key, str)][:_PUBLIC_KEYS_MAX]


def _is_signed(signed: Mapping[str, Any], public_keys: list[str]) -> bool:
    """Whether any signature matches any of the keys."""
    signatures = signed.get("signatures")
    if not isinstance(signatures, Mapping):
        return False
    # Sorted, for the order of the members of an object is not the same on all servers.
    names = sorted((entity, key_id) for entity in signatures for key_id in signature_key_ids(signed, entity))
    for entity, key_id in islice(names, _SIGNATURES_MAX):
        for public_key in public_keys:
            try:
                key = VerifyKey.parse(key_id=key_id, key_base64=public_key)
            except InvalidParam:
                continue
            if verify_json(signed, entity, key):
                return True
    return False
