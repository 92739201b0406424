"""Which logins an SSH server offers (RFC 4252, section 5.2)."""

from __future__ import annotations

from vmconnect.direct.library import paramiko

__all__ = ["offered_logins"]


def offered_logins(transport: paramiko.Transport, user: str) -> tuple[str, ...]:
    """Return the names of the logins that the server offers ``user``; none where it tells no more.

    It tells when it refuses the login that needs no proof.
    """
    if not transport.is_active():
        return ()
    try:
        transport.auth_none(user)
    except paramiko.BadAuthenticationType as error:
        return tuple(error.allowed_types)
    except (paramiko.SSHException, OSError, EOFError):
        pass
    return ()
