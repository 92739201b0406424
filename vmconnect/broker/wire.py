"""How client and broker talk: over which socket, in which messages, and who may.

One message is one packet of a SOCK_SEQPACKET socket (unix(7)), bounded, its kind in the first
byte. A client sends an order first: `RUN` with the three standard descriptors beside it
(SCM_RIGHTS), or a question of ``vmconnect sessions``.
"""

import os
import sys
from _socket import (
    AF_UNIX,
    SO_PEERCRED,
    SOCK_SEQPACKET,
    SOL_SOCKET,
)
from _socket import socket as Socket  # noqa: N812 (the class that socket.socket is made of)

from vmconnect.runtime import is_private, runtime_path

__all__ = ["LIMIT_BYTES", "PROTOCOL", "connect", "peer", "socket_path"]

PROTOCOL = "1"
"""The first field of every order; all that follows is of this version."""

LIMIT_BYTES = 128 << 10
"""No packet is longer. It has to be less than what a socket holds (net.core.wmem_default)."""

DESCRIPTORS = 3
"""How many come with `RUN`: standard input, output and error."""

# From the client, first:
RUN = b"R"  # an `Order`, to be run
SESSIONS = b"S"  # which are open?
CLOSE = b"X"  # close those whose names follow
STOP = b"Q"  # take no more orders, and end when the last is done
# From the client, later:
INPUT = b"I"  # bytes typed at the terminal; none is the end
INTERRUPT = b"C"  # Ctrl-C before the command runs
PAUSE, RESUME = b"P", b"G"  # Ctrl-Z and what follows it
SIGNAL = b"N"  # the command is to get the signal that follows, by its name without SIG
# From the broker:
TAKEN = b"t"  # the order has been read
BEGUN = b"b"  # from now on nobody but the broker may run it
WANT = b"w"  # input, of a client that reads its terminal itself
EXIT = b"e"  # it is over; the exit code follows
ALONE = b"a"  # do it without a broker: this one cannot, or not as well
RETIRED = b"r"  # likewise, and this one takes no more: start another
SESSION = b"s"  # one session, as a JSON object
DONE = b"d"  # that is all; a number follows where one was asked for

# struct ucred of SO_PEERCRED: pid, uid, gid, each an int (unix(7)).
_INT_BYTES = 4


def socket_path() -> str:
    """Return where the broker listens."""
    return f"{runtime_path()}/broker.sock"


def connect(timeout: float) -> "Socket | None":
    """Return a connection to the broker; None if there is none that is ours.

    ``timeout`` (seconds) is set on it.
    """
    path = socket_path()
    try:
        if not is_private(os.lstat(os.path.dirname(path))):  # noqa: PTH120 (no pathlib here)
            return None
    except OSError:
        return None
    connection = Socket(AF_UNIX, SOCK_SEQPACKET)
    connection.settimeout(timeout)
    try:
        connection.connect(path)
        if peer(connection)[1] == os.geteuid():
            return connection
    except OSError:
        pass  # Nobody listens, or nobody has for so long that the queue is full.
    connection.close()
    return None


def peer(connection: "Socket") -> tuple[int, int]:
    """Return the process and user ids of the far end, as the kernel knows them."""
    ids = connection.getsockopt(SOL_SOCKET, SO_PEERCRED, 3 * _INT_BYTES)
    return tuple(  # type: ignore[return-value]
        int.from_bytes(ids[at : at + _INT_BYTES], sys.byteorder) for at in (0, _INT_BYTES)
    )
