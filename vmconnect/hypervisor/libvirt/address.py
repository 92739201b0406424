"""libvirt's URIs, and our targets for its machines.

``libvirt:///system/web01`` is the domain web01 of ``qemu:///system``; ``libvirt://kvm7/system/web01``
that of ``qemu+ssh://kvm7/system``; other transports are named as libvirt names them
(https://libvirt.org/uri.html): ``libvirt+tls://kvm7/system/web01``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl, quote, unquote, urlencode

from vmconnect.errors import TargetError
from vmconnect.hypervisor.sockets import libvirt_sockets
from vmconnect.streams import SshHost

__all__ = ["LibvirtAddress"]

FORM = "libvirt:///system/NAME, libvirt:///session/NAME or libvirt://HOST/system/NAME"

_TRANSPORTS = ("", "unix", "ssh", "libssh", "libssh2", "tls", "tcp")
# Parameters that name files and habits. Those that name programs (command, netcat) are refused: a
# target may come from a list that somebody else has written.
_PARAMETERS = {"socket", "mode", "keyfile", "known_hosts", "known_hosts_verify", "sshauth", "proxy"}
_TARGET = re.compile(
    r"libvirt(?:\+(?P<transport>\w+))?://(?P<host>[^/?#]*)/(?P<path>system|session)"
    r"(?:/(?P<name>[^/?#]*))?(?:\?(?P<query>[^#]*))?"
)


@dataclass(frozen=True, slots=True)
class LibvirtAddress:
    """Where a libvirt daemon is: ``path`` is system or session; no ``host`` is this one."""

    path: str
    host: str = ""
    transport: str = ""
    query: str = ""

    @classmethod
    def read(cls, target: str) -> tuple[Self, str]:
        """Return the address in a target, and the machine's name, which may be missing.

        Raises TargetError.
        """
        match = _TARGET.fullmatch(target)
        if match is None:
            raise TargetError(f"{target!r} is no libvirt machine", hint=FORM)
        host, transport = match["host"], match["transport"] or ""
        if transport not in _TRANSPORTS:
            raise TargetError(
                f"libvirt has no transport {transport!r}", hint=", ".join(filter(None, _TRANSPORTS))
            )
        if host:
            SshHost.read(host)  # Whatever the transport: raises for what is no host.
        parameters = parse_qsl(match["query"] or "", keep_blank_values=True)
        for key, _ in parameters:
            if key not in _PARAMETERS:
                raise TargetError(
                    f"the parameter {key!r} is not allowed in a target",
                    hint="allowed: " + ", ".join(sorted(_PARAMETERS)),
                )
        name = unquote(match["name"] or "")
        if name and not name.isprintable():
            raise TargetError(f"{name!r} is no name of a machine", hint=FORM)
        return cls(match["path"], host, transport, urlencode(parameters, safe="/")), name

    @property
    def remote(self) -> bool:
        """Whether the daemon is on another host."""
        return bool(self.host)

    @property
    def hostname(self) -> str:
        """The host alone, with neither user nor port."""
        return SshHost.read(self.host).name

    @property
    def ssh_host(self) -> SshHost | None:
        """The daemon's host, if it is reached by ssh: then what listens there can be, too."""
        by_ssh = self.host and self.transport in {"", "ssh", "libssh", "libssh2"}
        return SshHost.read(self.host) if by_ssh else None

    @property
    def uri(self) -> str:
        """The URI as libvirt takes it; another host is reached by ssh unless it says else."""
        transport = self.transport or ("ssh" if self.host else "")
        scheme = f"qemu+{transport}" if transport else "qemu"
        return f"{scheme}://{self.host}/{self.path}" + (f"?{self.query}" if self.query else "")

    @property
    def sockets(self) -> list[Path]:
        """Where a daemon of this host listens, the modular one's first; none of another's."""
        if self.remote:
            return []
        if named := dict(parse_qsl(self.query)).get("socket"):
            return [Path(named)]
        return libvirt_sockets(self.path)

    def target(self, name: str) -> str:
        """Return the target of the machine of that name."""
        scheme = f"libvirt+{self.transport}" if self.transport else "libvirt"
        text = f"{scheme}://{self.host}/{self.path}/{quote(name, safe='')}"
        return text + (f"?{self.query}" if self.query else "")
