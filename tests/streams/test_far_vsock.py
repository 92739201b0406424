"""Vsock of another host: that host is a guest, since no vsock is to be opened on this one."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmconnect.demo import DemoMachine
from vmconnect.errors import ConnectError
from vmconnect.streams import SshHost, ThroughSsh, Vsock, dial

from .far_ends import SECONDS
from .far_host import leave

pytestmark = pytest.mark.guest

# What ssh connects by: the guest's sshd behind its hybrid vsock.
_PROXY = """
import socket, sys
from vmconnect.streams.ssh.far_end import copy
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
sock.sendall(b"CONNECT 22\\n")
while sock.recv(1) != b"\\n":
    pass
copy(sock)
"""
# The guest itself, by its loopback transport (vsock(7)).
_LOOPBACK = 1


@pytest.fixture
def guest(demo_machine: DemoMachine) -> Iterator[SshHost]:
    """Give the guest as a host to reach by ssh."""
    with tempfile.TemporaryDirectory(prefix="vmc-") as name, pytest.MonkeyPatch.context() as patch:
        proxy, config, known = (Path(name, each) for each in ("proxy.py", "config", "known"))
        proxy.write_text(_PROXY)
        known.write_text(f"guest {demo_machine.image.host_key}\n")
        config.write_text(
            f"""
Host guest
  User root
  HostKeyAlias guest
  ProxyCommand {sys.executable} {proxy} {demo_machine.vsock_path}
  IdentityFile {demo_machine.client_key}
  IdentitiesOnly yes
  UserKnownHostsFile {known}
  GlobalKnownHostsFile /dev/null
"""
        )
        patch.setenv("VMCONNECT_SSH", f"ssh -F {config}")
        try:
            yield SshHost("guest")
        finally:
            leave(config, "guest")


def test_a_vsock_port_there(guest: SshHost) -> None:
    with contextlib.closing(dial(ThroughSsh(guest, Vsock(_LOOPBACK, 22)), SECONDS)) as stream:
        stream.settimeout(SECONDS)
        assert stream.recv(8) == b"SSH-2.0-"


def test_a_vsock_port_where_nothing_listens(guest: SshHost) -> None:
    with pytest.raises(ConnectError, match="cannot connect to vsock/1:2222 on guest"):
        dial(ThroughSsh(guest, Vsock(_LOOPBACK, 2222)), SECONDS)
