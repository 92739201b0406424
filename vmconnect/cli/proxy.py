"""``vmconnect proxy``: standard input and output joined to a guest's SSH server."""

from __future__ import annotations

import argparse
import os
import socket
from typing import TYPE_CHECKING, NoReturn

from vmconnect.errors import ConnectionLostError, UnsupportedError
from vmconnect.session import parse_target, resolve
from vmconnect.session.guest_port import endpoint_at, open_port
from vmconnect.streams import SSH_PORT, HybridVsock, Stream, Vsock

if TYPE_CHECKING:
    from vmconnect.hypervisor import Machine

__all__ = ["configure", "run"]

_SECONDS = 10.0
_MOST_PORT = 0xFFFFFFFE  # VMADDR_PORT_ANY is no port (vsock(7))


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "For OpenSSH, whose scp, sftp, rsync and git then reach the guest too: "
        "ssh -o ProxyCommand='vmconnect proxy %h %p' root@web01. "
        "vmconnect ssh-config prints the lines for ~/.ssh/config."
    )
    parser.add_argument("target", metavar="TARGET", help="the machine")
    parser.add_argument(
        "port",
        metavar="PORT",
        nargs="?",
        type=_port,
        default=SSH_PORT,
        help=f"the guest's vsock port ({SSH_PORT})",
    )
    parser.add_argument(
        "--fdpass",
        action="store_true",
        help="hand the connection over on standard output and exit (ssh's ProxyUseFdpass)",
    )
    parser.add_argument(
        "--suffix", metavar="TEXT", help="what TARGET may end with and is no part of the name"
    )
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=float,
        default=0.0,
        help="keep trying that long, for a guest that is still starting",
    )


def run(arguments: argparse.Namespace) -> int:
    """Join them until both have ended, and return the exit code."""
    target: str = arguments.target
    if arguments.suffix and target != arguments.suffix:
        target = target.removesuffix(arguments.suffix)
    # No session: ssh starts us anew for every connection, and waits for nothing else.
    machine = resolve(parse_target(target), _SECONDS)
    seconds = max(_SECONDS, arguments.wait)
    stream = open_port(machine, arguments.port, seconds, wait=arguments.wait > 0)
    if arguments.fdpass:
        _hand_over(stream, machine, arguments.port)
    _join(stream)
    return 0


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise argparse.ArgumentTypeError(f"{text!r} is no port")
    port = int(text)
    if not 0 < port <= _MOST_PORT:
        raise argparse.ArgumentTypeError(f"there is no port {port}")
    return port


def _join(stream: Stream) -> None:
    from vmconnect.streams.joint import join

    join(stream, 0, 1)


def _hand_over(stream: Stream, machine: Machine, port: int) -> NoReturn:
    """Send the connection's descriptor over standard output, which is a socket of ssh's then."""
    try:
        waiting = socket.socket(fileno=os.dup(1))
        if waiting.family != socket.AF_UNIX:
            raise OSError
    except OSError:
        raise UnsupportedError(
            "standard output takes no connection: it is no UNIX socket",
            hint="ssh gives one with ProxyUseFdpass yes; else leave --fdpass out",
        ) from None
    with waiting:
        if isinstance(endpoint_at(machine, port), Vsock | HybridVsock):
            _send_descriptor(waiting, stream.fileno())
            os._exit(0)  # ssh waits for that, and Python takes its modules apart for long.
        # It is more than one socket: whoever takes it gets one, and a process joins the two.
        ours, theirs = socket.socketpair()
        if os.fork():
            ours.close()
            _send_descriptor(waiting, theirs.fileno())
            os._exit(0)
    theirs.close()
    _stay(stream, ours.detach())
    os._exit(0)


def _send_descriptor(waiting: socket.socket, descriptor: int) -> None:
    try:
        socket.send_fds(waiting, [b"\0"], [descriptor])
    except OSError as error:
        raise ConnectionLostError(f"nobody takes the connection: {error.strerror}") from error


def _stay(stream: Stream, descriptor: int) -> None:
    """Join a stream to a socket, in a process that nobody waits for."""
    from vmconnect.streams.joint import join

    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    join(stream, descriptor, descriptor)
