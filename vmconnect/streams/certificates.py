"""Certificates for TLS, of whoever uses it: which are trusted, and which is ours."""

from __future__ import annotations

import ssl
from pathlib import Path

from vmconnect.errors import ResourceError

__all__ = ["load_certificates"]


def load_certificates(
    context: ssl.SSLContext,
    authority: Path | None,
    certificate: Path | None = None,
    private_key: Path | None = None,
) -> None:
    """Let ``context`` trust the CAs in ``authority``, and show ``certificate``; PEM files all.

    Raises ResourceError if one cannot be read, or if the private key wants a passphrase.
    """
    try:
        if authority is not None:
            context.load_verify_locations(authority)
        if certificate is not None:
            # OpenSSL itself would ask for a passphrase, on the terminal.
            context.load_cert_chain(certificate, private_key, password=lambda: b"")
    except (OSError, ssl.SSLError) as error:
        raise ResourceError(
            f"cannot read the certificates: {error.strerror or error}",
            hint="they should be PEM files, and the private key one without a passphrase",
        ) from error
