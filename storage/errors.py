"""What can go wrong with the database, in our own words; the driver's exceptions stop in this package.

Those that a caller may cause or must be told of are also `MatrixError`s, so that an edge answers them properly.
"""

from homeserver.core.errors import InvalidParam, UnavailableForNow


class DatabaseError(Exception):
    """The database refused a statement.

    Attributes:
        sqlstate: PostgreSQL's five-character code; a stored function may raise its own.
    """

    def __init__(self, message: str = "", *, sqlstate: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class DatabaseUnavailable(DatabaseError, UnavailableForNow):
    """The database cannot be reached, is starting or stopping, or has no free connection in time."""

    def __init__(self, message: str = "The database is not available", *, sqlstate: str = "") -> None:
        UnavailableForNow.__init__(self, message)
        self.sqlstate = sqlstate


class TimeLimitReached(DatabaseUnavailable):
    """A statement, or its wait for a lock, took longer than is allowed."""


class UnstorableValue(DatabaseError, InvalidParam):
    """A value cannot be stored: a NUL character, a lone surrogate, a number out of range."""

    def __init__(self, message: str = "A value cannot be stored", *, sqlstate: str = "") -> None:
        InvalidParam.__init__(self, message)
        self.sqlstate = sqlstate


class ConstraintViolation(DatabaseError):
    """A constraint of the schema was violated.

    Attributes:
        constraint: its name.
    """

    def __init__(self, message: str = "", *, constraint: str = "", sqlstate: str = "") -> None:
        super().__init__(message, sqlstate=sqlstate)
        self.constraint = constraint


class UniqueViolation(ConstraintViolation):
    """There is such a row already."""


class Serialization(DatabaseError):
    """The transaction met another one (deadlock, serialization failure); it may be run again as a whole."""


class ForbiddenInTransaction(RuntimeError):
    """Something that waits for the outside was attempted while a transaction was open: a mistake in the program."""
