"""Endpoints: addresses that can be dialled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from vmconnect.errors import TargetError

__all__ = ["SSH_PORT", "Endpoint", "HybridVsock", "Tcp", "Unix", "Vsock"]

# The vsock port of a guest's sshd, as systemd-ssh-generator(8) binds it.
SSH_PORT = 22

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Endpoint:
    """An address that can be dialled.

    Here are those of the kernel's sockets; `vmconnect.streams.overlay` has those over others, and
    `vmconnect.streams.ssh` those of other hosts. Each is printed as a person would write it.
    """

    __slots__ = ()

    @property
    def private(self) -> bool:
        """Whether nobody can listen or step in between.

        That is a socket of this host, or encryption to an end that has proved who it is. A TCP
        port is not private, not even one of loopback: whoever is first gets it.
        """
        return False

    @property
    def local(self) -> bool:
        """Whether it is on this host, where bandwidth costs nothing."""
        return False

    @property
    def hostname(self) -> str | None:
        """The host that a certificate shown there should be made out to, if there is one."""
        return None


@dataclass(frozen=True, slots=True)
class Tcp(Endpoint):
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
class Unix(Endpoint):
    """A UNIX socket."""

    path: str

    private = True
    local = True

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class Vsock(Endpoint):
    """A port of a context over the kernel's AF_VSOCK (vsock(7)); CID 2 is the host."""

    cid: int
    port: int

    private = True
    local = True

    def __str__(self) -> str:
        return f"vsock/{self.cid}:{self.port}"


@dataclass(frozen=True, slots=True)
class HybridVsock(Endpoint):
    """A guest's vsock port behind a UNIX socket.

    The form that Firecracker, Cloud Hypervisor, vhost-device-vsock and ``vmconnect
    vsock-device`` speak: the client says ``CONNECT <port>``, the device answers ``OK
    <host port>``, and the guest's bytes follow (Firecracker, docs/vsock.md).
    """

    path: str
    port: int

    private = True
    local = True

    def __str__(self) -> str:
        return f"vsock-mux{self.path}:{self.port}"
