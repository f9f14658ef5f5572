"""The keys to wake for everything that was written between two positions, read in one statement."""

from typing import Final

from storage.account_data import SELECT_ACCOUNT_DATA_KEYS
from storage.device_lists import SELECT_DEVICE_LIST_KEYS
from storage.devices import SELECT_DEVICE_KEYS
from storage.one_time_keys import SELECT_KEY_COUNT_KEYS
from storage.presence import SELECT_PRESENCE_KEYS
from storage.profiles import SELECT_PROFILE_KEYS
from storage.push_rules import SELECT_PUSH_RULE_KEYS
from storage.receipts import SELECT_RECEIPT_KEYS
from storage.timelines import SELECT_EVENT_KEYS, SELECT_MEMBERSHIP_KEYS, SELECT_STATE_KEYS
from storage.typing import SELECT_TYPING_KEYS

_OF_EACH_STREAM: Final = (
    SELECT_EVENT_KEYS,
    SELECT_STATE_KEYS,
    SELECT_MEMBERSHIP_KEYS,
    SELECT_ACCOUNT_DATA_KEYS,
    SELECT_DEVICE_KEYS,
    SELECT_DEVICE_LIST_KEYS,
    SELECT_KEY_COUNT_KEYS,
    SELECT_PRESENCE_KEYS,
    SELECT_PROFILE_KEYS,
    SELECT_PUSH_RULE_KEYS,
    SELECT_RECEIPT_KEYS,
    SELECT_TYPING_KEYS,
)

SELECT_STREAM_KEYS: Final = f"SELECT key, position FROM (({') UNION ALL ('.join(_OF_EACH_STREAM)})) AS streams"  # noqa: S608 (only constants)
"""Takes two positions and a limit for each stream."""
