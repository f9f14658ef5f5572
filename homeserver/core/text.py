"""Texts from outside that are to be stored."""


def is_storable(text: str) -> bool:
    """Whether a database takes the text: PostgreSQL has no NUL, and lone surrogates have no encoding."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False
