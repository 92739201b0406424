"""How to log in: one security type a file, found through one table.

`LOGINS`
    what we can do, the safest first
`choose`
    the one to use of those that a server offers
`log_in`
    to use it
"""

from __future__ import annotations

from vmconnect.vnc.security.anonymous_tls import ANONYMOUS_TLS
from vmconnect.vnc.security.apple_dh import APPLE_DH
from vmconnect.vnc.security.base import Asks, Login, log_in
from vmconnect.vnc.security.choice import choose, login_name
from vmconnect.vnc.security.mslogon import MSLOGON_II
from vmconnect.vnc.security.none import NONE
from vmconnect.vnc.security.ra2 import RA2, RA2_256, RA2NE, RA2NE_256
from vmconnect.vnc.security.sasl import SASL
from vmconnect.vnc.security.tight import TIGHT
from vmconnect.vnc.security.vencrypt import VENCRYPT
from vmconnect.vnc.security.vncauth import VNC_AUTH

__all__ = ["LOGINS", "NONE", "Asks", "Login", "choose", "log_in", "login_name"]

LOGINS: tuple[Login, ...] = (
    VENCRYPT,
    RA2_256,
    RA2,
    ANONYMOUS_TLS,
    RA2NE_256,
    RA2NE,
    SASL,
    APPLE_DH,
    VNC_AUTH,
    NONE,
    TIGHT,
    MSLOGON_II,
)
