"""What a console demands of a server before it tells it a secret."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Policy", "ServerKey"]


@dataclass(frozen=True, slots=True)
class ServerKey:
    """What a server proves to be: its certificate, or its RSA key.

    ``kind`` is ``x509`` or ``rsa``. ``blob`` is the certificate as DER, or the key as RA2 sends
    it: its length in bits, the modulus and the exponent, big-endian.
    """

    kind: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the blob, as ``openssl x509 -fingerprint -sha256`` prints it."""
        return "SHA256 " + hashlib.sha256(self.blob).digest().hex(":").upper()


@dataclass(frozen=True, slots=True)
class Policy:
    """How the server must prove itself, and how we do beside our password.

    ``private`` says that nobody can listen or step in between: a UNIX socket, vsock, SSH. There
    the cheapest login is the best, and a readable password does no harm; elsewhere encryption
    comes first, and a login that shows the password is not made.

    ``check_key`` is called with the server's key before anything secret is sent, and raises
    TrustError to refuse it; a server with a key is refused where there is no such check. With
    ``authority``, a file of CA certificates (PEM), certificates must come from there and be made
    out to ``server_name``, if one is given; ``check_key`` is not asked about them. ``verified``
    refuses every login in which the server proves nothing, so that nobody can talk us out of it.

    ``certificate`` and ``private_key`` (PEM) are ours, for servers that want one.
    """

    private: bool = False
    check_key: Callable[[ServerKey], None] | None = None
    verified: bool = False
    authority: Path | None = None
    server_name: str | None = None
    certificate: Path | None = None
    private_key: Path | None = None
