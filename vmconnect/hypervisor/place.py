"""Where hypervisors' sockets lie: in a directory of this host, or of another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vmconnect.errors import UnsupportedError
from vmconnect.hypervisor.machine import Machine
from vmconnect.hypervisor.sockets import sockets_in
from vmconnect.streams import Endpoint, Unix

if TYPE_CHECKING:
    from vmconnect.streams import SshHost

__all__ = ["Place", "afar"]


class Place:
    """A directory of sockets of one ``kind`` of hypervisor: qemu, ch or fc.

    On another ``host`` nothing but the sockets can be asked: no directory is listed there, and no
    file beside a socket read.
    """

    def __init__(self, kind: str, directory: Path, host: SshHost | None = None):
        self.kind = kind
        self.directory = directory
        self.host = host

    @property
    def far(self) -> bool:
        """Whether it is on another host."""
        return self.host is not None

    def socket(self, path: Path) -> Endpoint:
        """Return a socket there as it is reached from here."""
        socket = Unix(str(path))
        if self.host is None:
            return socket
        from vmconnect.streams import through

        return through(self.host, socket)

    def reached(self, machine: Machine) -> Machine:
        """Return a machine there, as it is told of there, with endpoints as reached from here."""
        return machine if self.host is None else afar(machine, self.host)

    def target(self, path: Path) -> str:
        """Return the target of the machine behind a socket."""
        return f"{self._prefix}{path}"

    def path(self, machine: Machine) -> Path:
        """Return the socket of a machine there."""
        return Path(machine.target.removeprefix(self._prefix))

    def sockets(self, suffix: str) -> list[Path]:
        """Return the sockets that are there; raises ResourceError, UnsupportedError."""
        if self.host is not None:
            raise UnsupportedError(
                f"the sockets of {self.host} are not listed",
                hint=f"name a machine by its socket, or ask libvirt there: ssh://{self.host}/NAME",
            )
        return sockets_in(self.directory, suffix)

    def __str__(self) -> str:
        return f"{self.directory} on {self.host}" if self.far else str(self.directory)

    @property
    def _prefix(self) -> str:
        return f"ssh://{self.host}/{self.kind}:" if self.far else f"{self.kind}:"


def afar(machine: Machine, host: SshHost) -> Machine:
    """Return a machine of ``host``, as it is told of there, with endpoints as reached from here."""
    from vmconnect.streams import through

    def reached(endpoint: Endpoint | None) -> Endpoint | None:
        return None if endpoint is None else through(host, endpoint)

    return replace(
        machine,
        console=reached(machine.console),
        guest=reached(machine.guest),
        agent=reached(machine.agent),
        serial=None if isinstance(machine.serial, Path) else reached(machine.serial),
        handed_console=False,  # No descriptor comes from there.
    )
