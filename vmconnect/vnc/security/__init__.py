"""How to log in: one security type a file, found through one table.

`LOGINS`
    what we can do, the best first
`choose`
    the one to use of those that a server offers
"""

from __future__ import annotations

from collections.abc import Sequence

from vmconnect.errors import AuthenticationError
from vmconnect.vnc.credentials import Credentials
from vmconnect.vnc.security.base import Login
from vmconnect.vnc.security.none import NONE
from vmconnect.vnc.security.vncauth import VNC_AUTH

__all__ = ["LOGINS", "Login", "choose", "login_name"]

LOGINS: tuple[Login, ...] = (VNC_AUTH, NONE)

# The IANA registry of RFB security types.
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
}


def login_name(number: int) -> str:
    """Return the name of a security type as people know it."""
    return f"{_NAMES[number]} ({number})" if number in _NAMES else f"type {number}"


def choose(offered: Sequence[int], credentials: Credentials) -> Login:
    """Return the best login that the server offers and we have the credentials for.

    A password is used if it is at hand, and asked for only if no login does without. Raises
    AuthenticationError if there is none.
    """
    known = [login for login in LOGINS if login.number in offered]
    if not credentials.has_password:
        known.sort(key=lambda login: login.needs_password)
    if known:
        return known[0]
    names = ", ".join(login_name(number) for number in sorted(set(offered)))
    raise AuthenticationError(
        f"the VNC server offers no login that we can make: {names}",
        hint="let it offer " + " or ".join(login.name for login in LOGINS),
    )
