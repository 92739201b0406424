"""The other vsock ports of a guest, beside its SSH server's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vmconnect.deadline import Deadline
from vmconnect.streams import Endpoint, HybridVsock, Stream, Vsock, dial

__all__ = ["vsock_ports"]


def vsock_ports(endpoint: Endpoint | None) -> Callable[[int, Deadline], Stream] | None:
    """Return what dials any port of the guest that ``endpoint`` is a port of.

    None where that is no vsock: a TCP port says nothing of others.
    """
    from vmconnect.streams.ssh.through import ThroughSsh

    match endpoint:
        case Vsock() | HybridVsock():
            return lambda port, deadline: dial(replace(endpoint, port=port), deadline)
        case ThroughSsh(inner=(Vsock() | HybridVsock()) as inner):
            return lambda port, deadline: dial(
                replace(endpoint, inner=replace(inner, port=port)), deadline
            )
        case _:
            return None
