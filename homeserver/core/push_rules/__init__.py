"""Push rules: which events a user is notified of, and how.

https://spec.matrix.org/v1.19/client-server-api/#push-rules
"""
