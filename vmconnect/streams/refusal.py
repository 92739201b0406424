"""Why a connection was not made, in words that help."""

from __future__ import annotations

import errno
import os

from vmconnect.errors import ConnectError, DeadlineError, VmconnectError

__all__ = ["busy", "refusal", "too_late"]

_HINTS = {
    errno.ENOENT: "is the machine running, and is this its socket?",
    errno.ECONNREFUSED: "is the machine running, and does anything listen there?",
    errno.EACCES: "you have no permission for this socket; try the user who started the machine",
    errno.ENODEV: "no guest has this CID, or the vhost_vsock module is not loaded",
    errno.EHOSTUNREACH: "is the host up?",
    errno.ENETUNREACH: "is the network up?",
}


def refusal(where: object, error: OSError) -> VmconnectError:
    """Return the error of ours for what the kernel said when ``where`` was connected to."""
    if isinstance(error, TimeoutError):
        return too_late(where)
    reason = error.strerror or (os.strerror(error.errno) if error.errno else str(error))
    return ConnectError(f"cannot connect to {where}: {reason}", hint=_HINTS.get(error.errno or 0))


def busy(where: object) -> DeadlineError:
    """Return the error for a server that took no call in time."""
    return DeadlineError(
        f"{where} took no call in time",
        hint="others wait there already: the program behind it may be stuck, or busy",
    )


def too_late(where: object) -> DeadlineError:
    """Return the error for a connection that was not made in time."""
    return DeadlineError(f"no answer from {where} in time")
