"""To whom a console's certificate is pinned: real QEMUs with TLS, on TCP ports of this host."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import vmconnect
from tests.session.restartable import Restartable, restartable
from tests.vnc.authority import Authority
from vmconnect.errors import HostKeyChangedError, HostKeyUnknownError
from vmconnect.session.key_store import PublicKey
from vmconnect.session.server_keys import ServerKeyStore

OTHER = "99999999-9999-4999-8999-999999999999"
_FIRST_PORT = 5900  # QEMU counts displays from here.


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is pinned yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def web02(rooms: Path) -> Iterator[Restartable]:
    """Give another machine beside web01."""
    with restartable(rooms, "web02") as machine:
        yield machine


class Servers:
    """Starts machines, each with the certificate of the moment, at ports that are named."""

    def __init__(self, directory: Path):
        if shutil.which("qemu-system-x86_64") is None:
            pytest.skip("needs QEMU (apt install qemu-system-x86)")
        self._authority = Authority(directory / "pki")
        self.renew()

    def renew(self) -> None:
        """Have another certificate, for those that start from now on."""
        self._authority.issue("server", "localhost")

    def start(self, machine: Restartable, port: int, identity: str | None = None) -> None:
        place = f"dir={self._authority.directory},endpoint=server,verify-peer=no"
        machine.start(
            *("-object", f"tls-creds-x509,id=tls0,{place}"),
            vnc=f"127.0.0.1:{port - _FIRST_PORT},tls-creds=tls0",
            identity=identity,
            stopped=True,
        )


@pytest.fixture
def servers(tmp_path: Path) -> Servers:
    return Servers(tmp_path)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def asked_at(machine: Restartable, port: int, *, accept: bool = False) -> list[str]:
    """Attach to its console, and return what anybody was asked about; it has to be at that port."""
    asked: list[str] = []

    def decide(key: PublicKey) -> bool:
        asked.append(key.kind)
        return accept

    with vmconnect.connect(machine.target) as session:
        assert str(session.machine.console) == f"127.0.0.1:{port}"
        session.console(accept_host_key=decide, reconnect=False)
    return asked


def test_a_certificate_is_the_machine_s_wherever_it_is(
    web01: Restartable, servers: Servers
) -> None:
    first, second = free_port(), free_port()
    servers.start(web01, first)
    with pytest.raises(HostKeyUnknownError):
        asked_at(web01, first)
    assert asked_at(web01, first, accept=True) == ["x509"]
    assert ServerKeyStore().pinned(web01.uuid)
    assert asked_at(web01, first) == []

    web01.kill()
    servers.start(web01, second)
    assert asked_at(web01, second) == []

    # It is not that nobody looks any more.
    web01.kill()
    servers.renew()
    for port in (first, second):
        servers.start(web01, port)
        with pytest.raises(HostKeyChangedError):
            asked_at(web01, port, accept=True)
        web01.kill()


def test_who_has_its_address_now_is_not_the_machine(
    web01: Restartable, web02: Restartable, servers: Servers
) -> None:
    """Neither is a stranger taken for it, nor does a stranger's certificate pass for a change."""
    port = free_port()
    servers.start(web01, port)
    assert asked_at(web01, port, accept=True) == ["x509"]
    web01.kill()

    servers.start(web02, port)
    with pytest.raises(HostKeyUnknownError):
        asked_at(web02, port)
    web02.kill()
    servers.renew()
    servers.start(web02, port)
    assert asked_at(web02, port, accept=True) == ["x509"]
    web02.kill()

    # Nor is one of the same name and place, with another UUID.
    servers.start(web01, port, identity=OTHER)
    with pytest.raises(HostKeyUnknownError):
        asked_at(web01, port)
    assert {
        each: bool(ServerKeyStore().pinned(each)) for each in (web01.uuid, web02.uuid, OTHER)
    } == {
        web01.uuid: True,
        web02.uuid: True,
        OTHER: False,
    }
