"""Targets: what a person types to name a machine, and the one parser for it.

=========================  ==========================================================
``web01``                  a machine by name or UUID, on any hypervisor known here
``qemu:/path/to/qmp.sock`` the machine behind a QEMU monitor
``vnc+unix:/path``         a VNC server on a UNIX socket
``vnc://host[:port]``      a VNC server on TCP, port 5900 unless given (RFC 7869)
``vsock/CID``              a guest by its vsock context id (systemd-ssh-proxy's form)
``vsock-mux/path``         a guest behind a hybrid vsock socket (likewise)
=========================  ==========================================================
"""

from __future__ import annotations

from dataclasses import dataclass

from vmconnect.errors import TargetError
from vmconnect.streams import SSH_PORT, Endpoint, HybridVsock, Tcp, Unix, Vsock

__all__ = ["AddressTarget", "NamedTarget", "QemuTarget", "Target", "parse_target"]

VNC_PORT = 5900
_NAME_CHARACTERS = 255
# VMADDR_CID_ANY; 0 and 1 are the hypervisor and loopback, 2 the host (vsock(7)).
_CID_ANY = 0xFFFFFFFF

_FORMS = (
    "a target is a name, qemu:/QMP.SOCK, vnc+unix:/PATH, vnc://HOST:PORT, vsock/CID "
    "or vsock-mux/PATH"
)


@dataclass(frozen=True, slots=True)
class NamedTarget:
    """A machine by its name or UUID."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class QemuTarget:
    """The machine behind a QEMU monitor's socket."""

    path: str

    def __str__(self) -> str:
        return f"qemu:{self.path}"


@dataclass(frozen=True, slots=True)
class AddressTarget:
    """A bare address: a console or a guest, with no hypervisor to ask."""

    text: str
    console: Endpoint | None = None
    guest: Endpoint | None = None

    def __str__(self) -> str:
        return self.text


Target = NamedTarget | QemuTarget | AddressTarget


def parse_target(text: str) -> Target:
    """Read a target; raises TargetError that says which forms there are."""
    if text.startswith("qemu:"):
        return QemuTarget(_path(text, "qemu:"))
    if text.startswith("vnc+unix:"):
        return AddressTarget(text, console=Unix(_path(text, "vnc+unix:")))
    if text.startswith("vnc://"):
        return AddressTarget(text, console=_vnc(text))
    if text.startswith("vsock-mux/"):
        return AddressTarget(text, guest=HybridVsock(_path(text, "vsock-mux"), SSH_PORT))
    if text.startswith("vsock/"):
        return AddressTarget(text, guest=Vsock(_cid(text), SSH_PORT))
    if not text or len(text) > _NAME_CHARACTERS or not text.isprintable() or set(text) & set("/:"):
        raise TargetError(f"{text[:_NAME_CHARACTERS]!r} is no target", hint=_FORMS)
    return NamedTarget(text)


def _path(text: str, prefix: str) -> str:
    path = text.removeprefix(prefix)
    if not path.startswith("/") or "\0" in path:
        raise TargetError(f"{text!r} lacks an absolute path", hint=f"{prefix.rstrip('/')}/PATH")
    return path


def _vnc(text: str) -> Tcp:
    """Read ``vnc://host[:port]``, with IPv6 addresses in brackets."""
    hint = "vnc://HOST:PORT"
    authority = text.removeprefix("vnc://").rstrip("/")
    if "@" in authority:
        raise TargetError(
            "a password or user has no place in an address", hint="vmconnect asks for it"
        )
    if authority.startswith("["):
        host, bracket, rest = authority[1:].partition("]")
        colon, port = rest[:1], rest[1:]
        if not bracket or colon not in {"", ":"}:
            raise TargetError(f"{text!r} is no VNC address", hint=hint)
    else:
        host, colon, port = authority.partition(":")
    if not host or not host.isprintable() or set(host) & set("/?# "):
        raise TargetError(f"{text!r} is no VNC address", hint=hint)
    if not colon:
        return Tcp(host, VNC_PORT)
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) <= 65535):
        raise TargetError(f"{text!r} has no valid port", hint=hint)
    return Tcp(host, int(port))


def _cid(text: str) -> int:
    digits = text.removeprefix("vsock/")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
        raise TargetError(f"{text!r} has no context id", hint="vsock/CID, a number from 3 on")
    cid = int(digits)
    if not 2 < cid < _CID_ANY:
        raise TargetError(f"no guest has the context id {cid}", hint="guests have 3 and more")
    return cid
