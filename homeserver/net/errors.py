"""Why a call to another host has failed; messages are for logs and name nothing secret."""


class CallFailed(Exception):
    """There is no answer, or none that can be used."""


class NotConnected(CallFailed):
    """There is no connection, so that nothing of the request was sent."""


class AddressForbidden(NotConnected):
    """The host has addresses that this server does not connect to, and no others."""


class CertificateRefused(NotConnected):
    """The host did not show a certificate that is good for the name it must bear."""


class ConnectionLost(CallFailed):
    """The connection broke before the answer was there; whether the request was acted upon nobody knows."""


class TookTooLong(CallFailed):
    """The answer was not there in time."""


class AnswerTooLarge(CallFailed):
    """The answer is larger than it may be."""


class AnswerInvalid(CallFailed):
    """The answer is no proper HTTP, is encoded in a way that was not asked for, or leads in circles."""
