"""How certificates of other hosts are checked."""

import ssl
from pathlib import Path


def client_tls(*, ca_file: Path | None = None, verify: bool = True) -> ssl.SSLContext:
    """A context for outgoing connections; it reads files, so make it before the event loop runs, and once.

    Args:
        ca_file: certificate authorities in PEM form, in place of the system's.
        verify: whether certificates are checked at all.

    Raises:
        OSError: the file cannot be read, or holds no certificates.
    """
    context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
