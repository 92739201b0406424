"""A broker that another user reaches, whatever let him through to its socket: he gets nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.broker.rig import WAIT, Rig, empty_rig, wait_gone
from vmconnect.broker import wire
from vmconnect.broker.order import Order, meaningful

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")

NOBODY = 65534
SESSIONS, STOP = (each + wire.PROTOCOL.encode() for each in (wire.SESSIONS, wire.STOP))
# The kernel tells a listener the effective user, and asks permissions of the file systems' one:
# that stays root, as the directory and the socket let nobody else in. A change of their modes would
# end the broker, which takes it for the loss of its socket.
_CLIENT = """
import ctypes, os, socket, sys
path, user, packet = sys.argv[1:]
os.seteuid(int(user))
ctypes.CDLL(None).setfsuid(0)
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
    client.settimeout(60)
    client.connect(path)
    print("connected", flush=True)
    try:
        socket.send_fds(client, [bytes.fromhex(packet)], [0, 1, 2])
        print(client.recv(1 << 17).hex())
    except (BrokenPipeError, ConnectionResetError):
        print()
"""


@pytest.fixture
def rig() -> Iterator[Rig]:
    """A broker that has no machine."""
    with empty_rig() as rig:
        words = [sys.executable, "-P", "-m", "vmconnect.cli.broker"]
        process = subprocess.Popen(words, env=rig.environment, stdin=subprocess.DEVNULL)
        try:
            assert rig.wait_started() == process.pid
            yield rig
            rig.stop()
        finally:
            process.kill()
            process.wait()


def answer(rig: Rig, user: int, packet: bytes) -> bytes:
    """Return the first packet that the broker has for a user's, none if it hangs up."""
    path = f"{rig.environment['XDG_RUNTIME_DIR']}/vmconnect/broker.sock"
    done = subprocess.run(
        [sys.executable, "-c", _CLIENT, path, str(user), packet.hex()],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=True,
    )
    first, second = done.stdout.splitlines()
    assert first == "connected"
    return bytes.fromhex(second)


def test_another_user_is_told_nothing_and_runs_nothing(rig: Rig) -> None:
    order = Order(["exec", "nothere", "true"], "/", meaningful(rig.environment)).to_bytes()
    before = rig.pid
    assert before is not None
    # Each, and what its own user has of it; the last one ends it.
    for packet, answered in [
        (SESSIONS, wire.DONE),
        (order, wire.TAKEN),
        (STOP, wire.DONE),
    ]:
        assert answer(rig, NOBODY, packet) == b""
        assert rig.pid == before
        assert answer(rig, 0, packet) == answered
    wait_gone(before)
