"""Targets: what a person types to name a machine, and the one parser for it.

=================================  ==================================================
``web01``                          a machine by name or UUID, on any hypervisor here
``web*``                           every machine whose name matches (fnmatch)
``qemu:/path/to/qmp.sock``         the machine behind a QEMU monitor
``ch:/path/to/api.sock``           the machine of a Cloud Hypervisor
``fc:/path/to/api.sock``           the machine of a Firecracker
``libvirt:///system/web01``        a libvirt domain of this host, by name or UUID
``libvirt://kvm7/system/web01``    one of another host's, by ssh
``qemu:///system/web01``           the same two, by libvirt's own URIs; so are
``qemu+tls://kvm7/system/web01``   all that it has for QEMU
``vnc://host[:port]``              a VNC server on TCP, port 5900 unless given (RFC 7869)
``vnc+tls://host[:port]``          one behind TLS (stunnel, x11vnc -ssl)
``vnc+unix:/path``                 one on a UNIX socket
``ws://host[:port]/path``          one behind a WebSocket (websockify, QEMU's own)
``wss://host[:port]/path``         the same, with TLS
``vsock/CID``                      a guest by its vsock context id (systemd-ssh-proxy's form)
``vsock-mux/path``                 a guest behind a hybrid vsock socket (likewise)
``console.vv``                     what a virt-viewer connection file says
``ssh://kvm7/web01``               a domain of another host's system libvirt
``ssh://kvm7/TARGET``              any other of the above, but a pattern or a file, as it
                                   is on another host: ``ssh://kvm7/qemu:/run/web01.qmp``
=================================  ==================================================

Reading a target looks at nothing but its text; `vmconnect.session.resolve` finds the machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from vmconnect.errors import TargetError
from vmconnect.streams import SSH_PORT, Endpoint, HybridVsock, Tcp, Unix, Vsock

if TYPE_CHECKING:
    from vmconnect.hypervisor import LibvirtAddress
    from vmconnect.streams import SshHost

__all__ = [
    "AddressTarget",
    "FileTarget",
    "LibvirtTarget",
    "NamedTarget",
    "SocketTarget",
    "Target",
    "parse_target",
]

VNC_PORT = 5900
_NAME_CHARACTERS = 255
_MOST_CHARACTERS = 4096
# VMADDR_CID_ANY; 0 and 1 are the hypervisor and loopback, 2 the host (vsock(7)).
_CID_ANY = 0xFFFFFFFF

_FORMS = (
    "a target is a name, a UUID, a pattern such as web*, qemu:/QMP.SOCK, ch:/API.SOCK, "
    "fc:/API.SOCK, libvirt:///system/NAME, vnc://HOST:PORT, vnc+unix:/PATH, wss://HOST/PATH, "
    "vsock/CID, vsock-mux/PATH, FILE.vv, or on another host ssh://HOST/NAME, ssh://HOST/qemu:/..."
)
_SOCKETS = ("qemu", "ch", "fc")
# Of RFC 7869's parameters, those that may be passed over: the others say how safe it has to be,
# or which way it has to go, and who wrote them relies on that.
_HARMLESS = {"colorlevel", "saveconnection"}
_SECRETS = {"vncpassword", "sshpassword"}


@dataclass(frozen=True, slots=True)
class NamedTarget:
    """A machine by its name or UUID, or machines by a shell pattern."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class SocketTarget:
    """The machine behind a hypervisor's socket, of ``host`` if that is not this one.

    ``kind`` is qemu, ch or fc.
    """

    kind: str
    path: str
    host: SshHost | None = None

    def __str__(self) -> str:
        there = f"ssh://{self.host}/" if self.host else ""
        return f"{there}{self.kind}:{self.path}"


@dataclass(frozen=True, slots=True)
class LibvirtTarget:
    """A domain, or a pattern of domains' names, of the libvirt daemon at ``address``."""

    text: str
    address: LibvirtAddress
    name: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class AddressTarget:
    """A bare address: a console or a guest, with no hypervisor to ask.

    ``name`` and ``user`` are what a VNC address may say of the machine's name and of who we are.
    """

    text: str
    console: Endpoint | None = None
    guest: Endpoint | None = None
    name: str | None = field(default=None, kw_only=True)
    user: str | None = field(default=None, kw_only=True)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class FileTarget:
    """A virt-viewer connection file, which is read when the target is resolved."""

    path: str

    def __str__(self) -> str:
        return self.path


Target = NamedTarget | SocketTarget | LibvirtTarget | AddressTarget | FileTarget


def parse_target(text: str) -> Target:
    """Read a target; raises TargetError that says which forms there are."""
    if len(text) > _MOST_CHARACTERS or not text.isprintable():
        raise TargetError(f"{text[:_NAME_CHARACTERS]!r} is no target", hint=_FORMS)
    if text.lower().endswith(".vv"):
        return FileTarget(text)
    scheme, colon, rest = text.partition(":")
    if colon:
        if scheme in {"vnc", "vnc+tls"} and rest.startswith("//"):
            return _vnc(text, scheme)
        if scheme in {"ws", "wss"} and rest.startswith("//"):
            return _websocket(text)
        if scheme == "vnc+unix":
            return AddressTarget(text, console=Unix(_path(text, "vnc+unix:")))
        if scheme == "ssh" and rest.startswith("//"):
            return _ssh(text)
        if rest.startswith("//") and scheme.partition("+")[0] in {"libvirt", "qemu"}:
            return _libvirt(text, "libvirt" + text.removeprefix("libvirt").removeprefix("qemu"))
        if scheme in _SOCKETS:
            return SocketTarget(scheme, _path(text, f"{scheme}:"))
    elif text.startswith("vsock-mux/"):
        return AddressTarget(text, guest=HybridVsock(_path(text, "vsock-mux"), SSH_PORT))
    elif text.startswith("vsock/"):
        return AddressTarget(text, guest=Vsock(_cid(text), SSH_PORT))
    if not text or len(text) > _NAME_CHARACTERS or set(text) & set("/:"):
        raise TargetError(f"{text[:_NAME_CHARACTERS]!r} is no target", hint=_FORMS)
    return NamedTarget(text)


def _path(text: str, prefix: str) -> str:
    path = text.removeprefix(prefix)
    if not path.startswith("/"):
        raise TargetError(f"{text!r} lacks an absolute path", hint=f"{prefix.rstrip('/')}/PATH")
    return path


def _libvirt(text: str, address: str) -> LibvirtTarget:
    from vmconnect.hypervisor.libvirt.address import FORM, LibvirtAddress

    if text.startswith("qemu:///") and not text.startswith(("qemu:///system", "qemu:///session")):
        raise TargetError(
            f"{text!r} is no libvirt machine", hint="a monitor's socket is qemu:/PATH, with one /"
        )
    where, name = LibvirtAddress.read(address)
    if not name or len(name) > _NAME_CHARACTERS:
        raise TargetError(f"{text!r} names no machine", hint=FORM)
    return LibvirtTarget(text, where, name)


def _ssh(text: str) -> Target:
    """Read ``ssh://[user@]host[:port]/`` and a target of that host."""
    where, slash, there = text.removeprefix("ssh://").partition("/")
    if not where or not slash or not there:
        raise TargetError(
            f"{text!r} names no machine", hint="ssh://[USER@]HOST[:PORT]/NAME, or .../TARGET"
        )
    from vmconnect.streams import SshHost, through

    host = SshHost.read(where)
    if "/" not in there:
        if set(there) & set("?#"):
            raise TargetError(f"{text!r} names no machine", hint="ssh://HOST/NAME")
        return _libvirt(text, f"libvirt://{where}/system/{there}")
    match None if there.startswith("ssh:") else parse_target(there):
        case SocketTarget(kind, path, None):
            return SocketTarget(kind, path, host)
        case AddressTarget() as target:
            return replace(
                target,
                text=text,
                console=target.console and through(host, target.console),
                guest=target.guest and through(host, target.guest),
            )
        case LibvirtTarget(address=address, name=name) if not address.remote:
            return LibvirtTarget(text, replace(address, host=where), name)
        case _:
            raise TargetError(
                f"{there!r} cannot be had through {host}",
                hint="a socket or an address there: ssh://HOST/qemu:/QMP.SOCK, "
                "ssh://HOST/vnc+unix:/PATH; hosts on the way are named in ssh_config (ProxyJump)",
            )


def _vnc(text: str, scheme: str) -> AddressTarget:
    """Read ``vnc://host[:port][?parameters]``, with IPv6 addresses in brackets (RFC 7869)."""
    address, _, query = text.removeprefix(f"{scheme}://").partition("?")
    address = address.rstrip("/")
    if "@" in address:
        raise TargetError(
            "a password or user has no place in front of a host",
            hint="vmconnect asks for it; a user can be given as ?VncUsername=NAME",
        )
    named = _vnc_parameters(query) if query else {}
    console: Endpoint = Tcp.read(address, VNC_PORT)
    if scheme == "vnc+tls":
        from vmconnect.streams import Tls

        console = Tls(console, console.hostname or "")
    return AddressTarget(
        text,
        console=console,
        name=named.get("connectionname"),
        user=named.get("vncusername"),
    )


def _websocket(text: str) -> AddressTarget:
    from vmconnect.streams import WebSocket

    return AddressTarget(text, console=WebSocket.at(text))


def _vnc_parameters(query: str) -> dict[str, str]:
    """Return the parameters that are of use, by their names in lower case."""
    from urllib.parse import unquote

    found: dict[str, str] = {}
    for parameter in query.split("&"):
        written, _, value = parameter.partition("=")
        key = written.lower()
        if key in _SECRETS:
            raise TargetError(
                f"{written} has no place in an address, which other users can read",
                hint="vmconnect asks for it, or takes it from --password-file",
            )
        if key in {"connectionname", "vncusername"}:
            text = unquote(value)
            if not text or len(text) > _NAME_CHARACTERS or not text.isprintable():
                raise TargetError(
                    f"{written} says nothing that can be shown",
                    hint=f"{written}=TEXT, at most {_NAME_CHARACTERS} characters",
                )
            found[key] = text
        elif key and key not in _HARMLESS:
            raise TargetError(
                f"the parameter {written[:_NAME_CHARACTERS]} is not supported in an address",
                hint="supported: VncUsername, ConnectionName",
            )
    return found


def _cid(text: str) -> int:
    digits = text.removeprefix("vsock/")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
        raise TargetError(f"{text!r} has no context id", hint="vsock/CID, a number from 3 on")
    cid = int(digits)
    if not 2 < cid < _CID_ANY:
        raise TargetError(f"no guest has the context id {cid}", hint="guests have 3 and more")
    return cid
