"""The states of an RFB connection, as one table (RFC 6143, section 7)."""

from __future__ import annotations

import enum

__all__ = ["TRANSITIONS", "State"]


class State(enum.Enum):
    """What is being spoken about."""

    VERSION = "version"
    SECURITY = "security"
    LOGIN = "login"
    SECURITY_RESULT = "security result"
    INIT = "init"
    NORMAL = "normal"
    CLOSED = "closed"


_S = State

TRANSITIONS: dict[State, frozenset[State]] = {
    _S.VERSION: frozenset({_S.SECURITY, _S.CLOSED}),
    _S.SECURITY: frozenset({_S.LOGIN, _S.CLOSED}),
    # Up to 3.7 security type None has no result.
    _S.LOGIN: frozenset({_S.SECURITY_RESULT, _S.INIT, _S.CLOSED}),
    _S.SECURITY_RESULT: frozenset({_S.INIT, _S.CLOSED}),
    _S.INIT: frozenset({_S.NORMAL, _S.CLOSED}),
    _S.NORMAL: frozenset({_S.CLOSED}),
    _S.CLOSED: frozenset(),
}
