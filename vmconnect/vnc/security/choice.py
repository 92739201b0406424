"""Which of the logins that a server offers is made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from vmconnect.errors import AuthenticationError, TrustError
from vmconnect.vnc.security.base import Asks, Login

if TYPE_CHECKING:
    from vmconnect.vnc.credentials import Credentials
    from vmconnect.vnc.engine import Engine

__all__ = ["choose", "login_name"]

# The IANA registry of RFB security types, and VeNCrypt's own.
_NAMES = {
    1: "None",
    2: "VncAuth",
    5: "RA2",
    6: "RA2ne",
    16: "Tight",
    17: "Ultra",
    18: "TLS",
    19: "VeNCrypt",
    20: "SASL",
    21: "MD5",
    22: "xvp",
    30: "Apple DH",
    113: "MSLogonII",
    129: "RA2-256",
    130: "RA2ne-256",
    133: "RA2r-256",
    256: "Plain",
    257: "TLSNone",
    258: "TLSVnc",
    259: "TLSPlain",
    260: "X509None",
    261: "X509Vnc",
    262: "X509Plain",
    263: "TLSSASL",
    264: "X509SASL",
    265: "Ident",
    266: "TLSIdent",
    267: "X509Ident",
}


def login_name(number: int) -> str:
    """Return the name of a security type as people know it."""
    return f"{_NAMES[number]} ({number})" if number in _NAMES else f"type {number}"


def choose(offered: Iterable[int], logins: Sequence[Login], engine: Engine) -> Login:
    """Return the best of ``logins``, the safest first, that a server offers by number.

    Credentials that are at hand are used, and asked for only if no login does without. Raises
    AuthenticationError if there is no login that we can make, TrustError if there are only such
    as the engine's policy forbids.
    """
    numbers = set(offered)
    engine.offered += (login_name(number) for number in sorted(numbers))
    policy, credentials = engine.policy, engine.credentials
    known = [login for login in logins if login.number in numbers]
    if not known:
        names = ", ".join(login_name(number) for number in sorted(numbers))
        raise AuthenticationError(
            f"the VNC server offers no login that we can make: {names or 'none at all'}",
            hint="let it offer " + " or ".join(login.name for login in logins),
        )
    # What goes through a tunnel already need not be hidden once more.
    private = policy.private or engine.tunnelled
    unproved = policy.verified and not engine.proved
    allowed = [
        login for login in known if (login.hides or private) and (login.proves or not unproved)
    ]
    if not allowed:
        raise _forbidden(known, unproved)
    return min(allowed, key=lambda login: _cost(login, private, credentials))


def _cost(login: Login, private: bool, credentials: Credentials) -> tuple[int, bool]:
    """Return what is to be asked of a person or left unused, and what is encrypted for nothing.

    Between equals the order of the table decides.
    """
    password, user = credentials.has_password, credentials.has_user
    wanted = {
        Asks.NOTHING: password + user,
        Asks.PASSWORD: (not password) + user,
        Asks.USER: (not password) + (not user),
        Asks.DEPENDS: 0,
    }
    return wanted[login.asks], private and login.encrypts


def _forbidden(known: Sequence[Login], unproved: bool) -> TrustError:
    names = ", ".join(login.name for login in known)
    if unproved:
        return TrustError(
            f"the VNC server offers only logins that do not prove who it is: {names}",
            hint="it has proved it before; somebody may be in between",
        )
    return TrustError(
        f"the VNC server offers only logins that show the password to who listens: {names}",
        hint="reach it through SSH or a UNIX socket, or let it offer VeNCrypt",
    )
