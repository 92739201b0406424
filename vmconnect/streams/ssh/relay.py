"""What runs at the far end where ssh alone cannot connect, and what it tells.

ssh itself connects to TCP ports, and from 9.4 on to UNIX sockets; for vsock, for older ssh, and to
learn why a connection was refused, a Python there connects, says so, and copies both ways. The
far user's shell may be any: no character of the command means anything to one.
"""

from __future__ import annotations

import base64
import errno
import importlib.resources
import os
import re

from vmconnect.errors import ConnectError, MissingDependencyError, VmconnectError
from vmconnect.streams.endpoint import HybridVsock, Tcp, Unix, Vsock
from vmconnect.streams.refusal import refusal
from vmconnect.streams.ssh.through import ThroughSsh

__all__ = ["CONNECTED", "command", "refused"]

CONNECTED = b"vmconnect: connected\n"
"""What the relay says first; the bytes of the connection follow."""

_REFUSED = re.compile(r"^vmconnect: (.{1,100})$", re.MULTILINE)
_REASON_CHARACTERS = 300
_NUMBERS = {name: number for number, name in errno.errorcode.items()}
# A shell's exit status where there is no such command (POSIX, 2.8.2).
_NOT_FOUND = 127


def command(inner: Tcp | Unix | Vsock | HybridVsock) -> str:
    """Return the command for the far user's shell."""
    match inner:
        case Tcp(host, port):
            words = ["tcp", host, str(port)]
        case Unix(path) | HybridVsock(path):
            words = ["unix", path]
        case Vsock(cid, port):
            words = ["vsock", str(cid), str(port)]
    program = importlib.resources.files(__package__).joinpath("far_end.py").read_bytes()
    coded = [base64.b16encode(os.fsencode(word)).decode() for word in words]
    code = "import base64,sys;exec(base64.b64decode(sys.argv[1]))"
    return f"python3 -I -S -c '{code}' {base64.b64encode(program).decode()} {' '.join(coded)}"


def refused(endpoint: ThroughSsh, status: int | None, said: str) -> VmconnectError:
    """Return the error for a relay that ended with that exit status, and said that."""
    if match := _REFUSED.search(said):
        number = _NUMBERS.get(match[1], 0)
        text = os.strerror(number) if number else _printable(match[1])
        return refusal(endpoint, OSError(number, text))
    if status == _NOT_FOUND:
        return MissingDependencyError(
            f"there is no python3 on {endpoint.host}, which the connection to "
            f"{endpoint.inner} needs",
            hint="install it there" + _without(endpoint),
        )
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    reason = lines[-1][:_REASON_CHARACTERS] if lines else "the session ends without a reason"
    return ConnectError(f"cannot connect to {endpoint}: {_printable(reason)}")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _without(endpoint: ThroughSsh) -> str:
    """Return what does without it."""
    if isinstance(endpoint.inner, Unix):
        return "; an OpenSSH here of 9.4 or later does without"
    return ""
