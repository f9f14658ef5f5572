DROP SEQUENCE guest_numbers;
DROP TABLE pending_departures, filters, ignored_users, account_data, profile_fields, uia_sessions, registration_tokens,
    registration_nonces, openid_tokens, login_tokens, token_keys, token_pairs, sessions, devices, users;
