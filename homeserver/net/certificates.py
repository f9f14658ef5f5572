"""Looks at the TLS certificate of another host, for those who want to know more of it than whether it is good."""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from homeserver.net.errors import CertificateRefused, NotConnected

SECONDS_MAX: Final = 10.0


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """A certificate that is good for the name it was asked for.

    Attributes:
        names: the host names and addresses that it is for.
        expires_ts: when it expires, in milliseconds since the epoch; None if it was not checked at all.
    """

    names: Sequence[str]
    expires_ts: int | None


async def peer_certificate(address: str, port: int, *, tls_name: str, tls: ssl.SSLContext) -> PeerCertificate:
    """The certificate that a host shows at an address.

    Args:
        address: an IP address, which the caller has found to be good to connect to.
        port: the TCP port.
        tls_name: the host name, or the address, that the certificate must be for.
        tls: how it is checked.

    Raises:
        CertificateRefused: it is not good, or not for this name.
        NotConnected: there is no connection.
    """
    try:
        async with asyncio.timeout(SECONDS_MAX):
            _, writer = await asyncio.open_connection(address, port, ssl=tls, server_hostname=tls_name)
    except TimeoutError as error:
        raise NotConnected(f"{address} took too long to connect") from error
    except ssl.SSLCertVerificationError as error:
        raise CertificateRefused(error.verify_message) from error
    except OSError as error:
        raise NotConnected(f"No connection to {address}: {error.strerror or error}") from error
    try:
        certificate: Mapping[str, Any] = writer.get_extra_info("peercert") or {}
    finally:
        writer.close()
    expires = certificate.get("notAfter")
    return PeerCertificate(
        names=[name for _, name in certificate.get("subjectAltName", ())],
        expires_ts=None if expires is None else int(ssl.cert_time_to_seconds(expires) * 1000),
    )
