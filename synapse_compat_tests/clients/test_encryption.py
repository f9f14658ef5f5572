"""What people do with encrypted devices on two servers, played again with a Synapse as one of both.

The tests themselves are those of two servers of ours.
"""

import pytest

from tests.clients.encryption.test_attachments import (  # noqa: F401 (tests, which pytest finds by their names here)
    test_a_picture_and_its_thumbnail,
    test_an_encrypted_attachment,
)
from tests.clients.encryption.test_devices import (  # noqa: F401
    test_a_deleted_device_gets_nothing_more,
    test_a_fallback_key_when_one_time_keys_are_spent,
    test_a_new_device_is_told_new_keys_only,
)
from tests.clients.encryption.test_key_storage import (  # noqa: F401
    test_a_new_device_restores_all_with_the_recovery_key,
    test_another_backup_takes_the_place_of_the_first,
)
from tests.clients.encryption.test_nio import (  # noqa: F401
    nio,
    test_devices_verify_each_other,
    test_with_users_of_matrix_js_sdk,
)
from tests.clients.encryption.test_outages import (  # noqa: F401
    test_changed_devices_of_a_server_that_was_away,
    test_keys_for_messages_reach_a_server_that_was_away,
    test_keys_that_cannot_be_claimed_while_a_server_is_away,
)
from tests.clients.encryption.test_rooms import (  # noqa: F401
    test_a_device_that_was_away,
    test_three_users_of_two_servers,
    test_who_leaves_reads_nothing_more,
)
from tests.clients.encryption.test_shared_history import (  # noqa: F401
    test_an_invited_user_reads_what_was_said_before,
)
from tests.clients.encryption.test_verification import (  # noqa: F401
    test_a_new_device_is_verified_by_an_old_one,
    test_a_single_device_is_verified,
    test_an_old_device_asks_a_new_one,
    test_emoji_that_differ,
    test_two_people_verify_each_other_in_a_room,
)

pytestmark = pytest.mark.seconds_max(180)
