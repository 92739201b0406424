"""Endpoints: addresses that can be dialled.

Each says of itself

``private``
    whether nobody can listen or step in between: a socket of this host, or encryption to an end
    that has proved who it is. A TCP port is not, not even of loopback: whoever is first gets it.
``local``
    whether it is on this host, where bandwidth costs nothing
``hostname``
    the host that a certificate shown there should be made out to; None if there is none
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self, TypeAlias, Union

from vmconnect.errors import TargetError, UnsupportedError
from vmconnect.streams.ssh.host import SshHost

__all__ = [
    "SSH_PORT",
    "Endpoint",
    "HybridVsock",
    "Tcp",
    "ThroughSsh",
    "Tls",
    "Unix",
    "Vsock",
    "WebSocket",
    "certified",
    "host_of",
    "through",
]

# The vsock port of a guest's sshd, as systemd-ssh-generator(8) binds it.
SSH_PORT = 22

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Tcp:
    """A TCP port on a host, by name or address."""

    host: str
    port: int

    @classmethod
    def read(cls, text: str, default_port: int) -> Self:
        """Read ``HOST[:PORT]``, with IPv6 addresses in brackets; raises TargetError."""
        if text.startswith("["):
            host, bracket, rest = text[1:].partition("]")
            colon, port = rest[:1], rest[1:]
            if not bracket or colon not in {"", ":"}:
                raise TargetError(f"{text!r} is no address", hint="HOST:PORT or [IPV6]:PORT")
        else:
            host, colon, port = text.partition(":")
        if not host or set(host) & set("/?#%@\\ "):
            raise TargetError(f"{text!r} is no address", hint="HOST:PORT")
        if not colon:
            return cls(host, default_port)
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) <= 65535):
            raise TargetError(f"{text!r} has no valid port", hint="HOST:PORT")
        return cls(host, int(port))

    private = False

    @property
    def local(self) -> bool:
        """Whether it is on this host."""
        return self.host in _LOOPBACK

    @property
    def hostname(self) -> str:
        """The host."""
        return self.host

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Unix:
    """A UNIX socket."""

    path: str

    private = True
    local = True
    hostname = None

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class Vsock:
    """A port of a context over the kernel's AF_VSOCK (vsock(7)); CID 2 is the host."""

    cid: int
    port: int

    private = True
    local = True
    hostname = None

    def __str__(self) -> str:
        return f"vsock/{self.cid}:{self.port}"


@dataclass(frozen=True, slots=True)
class HybridVsock:
    """A guest's vsock port behind a UNIX socket.

    The form that Firecracker, Cloud Hypervisor, vhost-device-vsock and ``vmconnect
    vsock-device`` speak: the client says ``CONNECT <port>``, the device answers ``OK
    <host port>``, and the guest's bytes follow (Firecracker, docs/vsock.md).
    """

    path: str
    port: int

    private = True
    local = True
    hostname = None

    def __str__(self) -> str:
        return f"vsock-mux{self.path}:{self.port}"


@dataclass(frozen=True, slots=True)
class ThroughSsh:
    """An endpoint of another host, reached by the user's own ssh; made by `through`."""

    host: SshHost
    inner: Tcp | Unix | Vsock | HybridVsock

    local = False

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


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS over another endpoint, which must prove to be ``server_name``.

    ``authority`` are the CAs that may say so, instead of the system's; ``certificate`` and
    ``private_key`` are ours, for servers that want one. All are PEM files.
    """

    over: Endpoint
    server_name: str
    authority: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None

    private = True

    @property
    def local(self) -> bool:
        """Whether what it goes over is on this host."""
        return self.over.local

    @property
    def hostname(self) -> str:
        """The name that the server proved."""
        return self.server_name

    def __str__(self) -> str:
        return f"tls+{self.over}"


@dataclass(frozen=True, slots=True)
class WebSocket:
    """A WebSocket over another endpoint (RFC 6455), made from a URL by `at`.

    ``host`` is what goes into the request's Host, ``resource`` the path and the query. Where
    those, or ``headers``, hold something secret (a token), no text of the endpoint shows it.
    """

    over: Endpoint
    host: str
    resource: str = field(default="/", repr=False)
    subprotocols: tuple[str, ...] = ("binary",)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        headers = [part for header in self.headers for part in header]
        for text in (self.host, self.resource, *self.subprotocols, *headers):
            if not text.isascii() or not text.isprintable():
                raise TargetError(
                    "a WebSocket's request has characters that do not belong there",
                    hint="anything but ASCII is written as %XX",
                )
        if not self.resource.startswith("/") or set(self.host + self.resource) & set(" #"):
            raise TargetError(
                "a WebSocket's address has characters that do not belong there",
                hint="a blank is written as %20, and what follows a # is the browser's own",
            )

    @classmethod
    def at(cls, url: str) -> Self:
        """Read ``ws://HOST[:PORT][/PATH][?QUERY]``, or ``wss://...``; raises TargetError."""
        scheme, _, rest = url.partition("://")
        hint = "ws://HOST:PORT/PATH or wss://HOST/PATH"
        if scheme not in {"ws", "wss"} or not url.isprintable():
            raise TargetError("this is no WebSocket's address", hint=hint)
        end = min((rest.index(mark) for mark in "/?#" if mark in rest), default=len(rest))
        address, resource = rest[:end], rest[end:]
        if "@" in address:
            raise TargetError(
                "a password or user has no place in front of a host", hint="it is not supported"
            )
        tcp = Tcp.read(address, 443 if scheme == "wss" else 80)
        return cls(
            Tls(tcp, tcp.host) if scheme == "wss" else tcp,
            address,
            resource if resource.startswith("/") else f"/{resource}",
        )

    @property
    def private(self) -> bool:
        """Whether what it goes over is private."""
        return self.over.private

    @property
    def local(self) -> bool:
        """Whether what it goes over is on this host."""
        return self.over.local

    @property
    def hostname(self) -> str | None:
        """The host, as what it goes over knows it."""
        return self.over.hostname

    def __str__(self) -> str:
        scheme = "wss" if isinstance(self.over, Tls) else "ws"
        return f"{scheme}://{self.host}{self.resource.partition('?')[0]}"


Endpoint: TypeAlias = Union[Tcp, Unix, Vsock, HybridVsock, ThroughSsh, Tls, WebSocket]  # noqa: UP007 (forward)


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
        case _:
            return ThroughSsh(host, endpoint)


def certified(
    endpoint: Endpoint, authority: Path | None, certificate: Path | None, private_key: Path | None
) -> Endpoint:
    """Return ``endpoint`` whose TLS, if there is any, uses these certificates where given."""
    match endpoint:
        case WebSocket(over=over):
            return replace(endpoint, over=certified(over, authority, certificate, private_key))
        case Tls():
            return replace(
                endpoint,
                authority=authority or endpoint.authority,
                certificate=certificate or endpoint.certificate,
                private_key=private_key or endpoint.private_key,
            )
        case _:
            return endpoint


def host_of(endpoint: Endpoint | None) -> SshHost | None:
    """Return the host that ssh has to reach for it, None if it has not."""
    match endpoint:
        case WebSocket(over=over) | Tls(over=over):
            return host_of(over)
        case ThroughSsh(host=host):
            return host
        case _:
            return None
