"""Endpoints: addresses that can be dialled."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SSH_PORT", "Endpoint", "HybridVsock", "Tcp", "Unix", "Vsock"]

# The vsock port of a guest's sshd, as systemd-ssh-generator(8) binds it.
SSH_PORT = 22


@dataclass(frozen=True, slots=True)
class Tcp:
    """A TCP port on a host, by name or address."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Unix:
    """A UNIX socket."""

    path: str

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class Vsock:
    """A port of a context over the kernel's AF_VSOCK (vsock(7)); CID 2 is the host."""

    cid: int
    port: int

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

    def __str__(self) -> str:
        return f"vsock-mux{self.path}:{self.port}"


Endpoint = Tcp | Unix | Vsock | HybridVsock
