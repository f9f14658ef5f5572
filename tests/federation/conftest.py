"""What the tests of federation share: an authority that all their servers trust, and fake servers."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.federation.certificates import CertificateAuthority, IssuedCertificate
from tests.federation.peer import Peer, running_peer


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    """The certificate authority of this test run."""
    folder: Path = tmp_path_factory.mktemp("certificates")
    return CertificateAuthority(folder)


@pytest.fixture(scope="session")
def local_certificate(authority: CertificateAuthority) -> IssuedCertificate:
    """A certificate for this machine, by name and by address."""
    return authority.issue("localhost", "127.0.0.1", "::1")


@pytest.fixture
async def peer(authority: CertificateAuthority, local_certificate: IssuedCertificate) -> AsyncIterator[Peer]:
    """A fake server, well-behaved as long as a test does not change its answers."""
    async with running_peer(authority, local_certificate) as running:
        yield running


@pytest.fixture
async def other_peer(authority: CertificateAuthority, local_certificate: IssuedCertificate) -> AsyncIterator[Peer]:
    """Another fake server."""
    async with running_peer(authority, local_certificate) as running:
        yield running
