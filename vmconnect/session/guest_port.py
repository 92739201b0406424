"""Streams to a port of a machine's guest that nobody has spoken over yet."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from vmconnect.deadline import Deadline
from vmconnect.errors import ConnectError, UnsupportedError, VmconnectError
from vmconnect.streams import SSH_PORT, Endpoint, HybridVsock, Stream, Vsock, dial

if TYPE_CHECKING:
    from vmconnect.hypervisor import Machine

__all__ = ["endpoint_at", "open_port"]

_RETRY_SECONDS = 0.1


def endpoint_at(machine: Machine, port: int) -> Endpoint:
    """Return where a vsock port of the machine's guest is reached.

    Raises UnsupportedError for a machine with no vsock.
    """
    guest = machine.guest
    if isinstance(guest, Vsock | HybridVsock):
        return replace(guest, port=port)
    if guest is not None:
        from vmconnect.streams import ThroughSsh

        if isinstance(guest, ThroughSsh) and isinstance(guest.inner, Vsock | HybridVsock):
            return replace(guest, inner=replace(guest.inner, port=port))
    raise UnsupportedError(
        "no vsock device is known of it",
        machine=machine.name,
        hint=f"vmconnect hints {machine.name} tells what it lacks",
    )


def open_port(
    machine: Machine,
    port: int = SSH_PORT,
    timeout: Deadline | float | None = 10.0,
    *,
    wait: bool = False,
) -> Stream:
    """Connect to a vsock port of the guest; ``wait`` retries while nobody answers there yet.

    Raises UnsupportedError for a machine with no vsock, ConnectError, DeadlineError.
    """
    deadline = Deadline.of(timeout)
    endpoint = endpoint_at(machine, port)
    while True:
        try:
            return dial(endpoint, deadline)
        except VmconnectError as error:
            left = deadline.remaining()
            late = left is not None and left < _RETRY_SECONDS
            if not (wait and isinstance(error, ConnectError)) or late:
                error.machine = machine.name  # and not the path that was dialled for it
                raise
        time.sleep(_RETRY_SECONDS)
