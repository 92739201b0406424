"""Endpoints of other hosts, as they are reached from here."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vmconnect.errors import UnsupportedError
from vmconnect.streams.endpoint import Endpoint, HybridVsock, Tcp, Unix, Vsock
from vmconnect.streams.overlay import Tls, WebSocket
from vmconnect.streams.ssh.host import SshHost

__all__ = ["ThroughSsh", "host_of", "through"]


@dataclass(frozen=True, slots=True)
class ThroughSsh(Endpoint):
    """An endpoint of another host, reached by the user's own ssh; made by `through`."""

    host: SshHost
    inner: Tcp | Unix | Vsock | HybridVsock

    @property
    def private(self) -> bool:
        """Whether it is private on its host: as far as there, ssh sees to it."""
        return self.inner.private

    @property
    def hostname(self) -> str | None:
        """The host that the other one knows it by."""
        return self.inner.hostname

    def __str__(self) -> str:
        return f"{self.inner} on {self.host}"


def through(host: SshHost, endpoint: Endpoint) -> Endpoint:
    """Return ``endpoint`` as it is reached from here if it is ``host``'s.

    What lies over a connection, TLS for instance, is still made here. Raises UnsupportedError for
    an endpoint that is reached through a host already.
    """
    match endpoint:
        case Tls() | WebSocket():
            return replace(endpoint, over=through(host, endpoint.over))
        case ThroughSsh():
            raise UnsupportedError(
                f"{endpoint} cannot be reached through {host}",
                hint="name the last host alone, and the others in ssh_config's ProxyJump",
            )
        case Tcp() | Unix() | Vsock() | HybridVsock():
            return ThroughSsh(host, endpoint)
        case _:
            raise UnsupportedError(f"{endpoint} cannot be reached through {host}")


def host_of(endpoint: Endpoint | None) -> SshHost | None:
    """Return the host that ssh has to reach for it, None if it has not."""
    match endpoint:
        case WebSocket(over=over) | Tls(over=over):
            return host_of(over)
        case ThroughSsh(host=host):
            return host
        case _:
            return None
