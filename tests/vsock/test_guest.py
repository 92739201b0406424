"""The device between a real Linux guest and programs on the host."""

from __future__ import annotations

import hashlib
import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import vmconnect
from vmconnect.deadline import Deadline
from vmconnect.demo import DemoMachine
from vmconnect.direct import Guest
from vmconnect.errors import ConnectError, ConnectionLostError
from vmconnect.hypervisor import QmpClient
from vmconnect.streams import SSH_PORT, HybridVsock, Stream, Unix, dial

pytestmark = pytest.mark.guest

WAIT = 60.0

SERVER = """
import socket, threading
listener = socket.socket(socket.AF_VSOCK)
listener.bind((socket.VMADDR_CID_ANY, 7000))
listener.listen(64)
print("ready", flush=True)
def echo(client):
    with client:
        while data := client.recv(65536):
            client.sendall(data)
while True:
    threading.Thread(target=echo, args=listener.accept()[:1], daemon=True).start()
"""

CALLER = """
import hashlib, socket
caller = socket.socket(socket.AF_VSOCK)
caller.connect((2, 6000))
caller.sendall(b"x" * 1_000_000)
caller.shutdown(socket.SHUT_WR)
digest = hashlib.sha256()
while data := caller.recv(65536):
    digest.update(data)
print(digest.hexdigest())
"""

REFUSED = """
import socket
try:
    socket.socket(socket.AF_VSOCK).connect((2, 6001))
except OSError as error:
    print(type(error).__name__)
"""


@pytest.fixture(scope="module")
def guest(demo_machine: DemoMachine) -> Iterator[Guest]:
    """Give the guest with an echo server at its vsock port 7000."""
    with vmconnect.connect(demo_machine.name) as session:
        guest = session.guest(timeout=WAIT, wait=True)
        script = 'python3 -c "$1" </dev/null >/tmp/echo.log 2>&1 & echo $!'
        server = guest.run(["sh", "-c", script, "sh", SERVER]).text.strip()
        wait = "until grep -q ready /tmp/echo.log; do sleep 0.05; done"
        assert guest.run(["sh", "-c", wait], timeout=WAIT).ok
        yield guest
        guest.run(["kill", server])


def echoed(machine: DemoMachine, data: bytes) -> str:
    """Send ``data`` to the guest's echo while reading, and return the digest of what came back."""
    stream = dial(HybridVsock(str(machine.vsock_path), 7000), WAIT)
    digest = hashlib.sha256()
    with ThreadPoolExecutor(1) as pool:

        def send() -> None:
            stream.sendall(data)
            stream.shutdown_write()

        sender = pool.submit(send)
        while part := stream.recv(1 << 16):
            digest.update(part)
        sender.result()
    stream.close()
    return digest.hexdigest()


def test_four_megabytes_there_and_back(demo_machine: DemoMachine, guest: Guest) -> None:
    data = random.Random(1).randbytes(4_000_000)
    assert echoed(demo_machine, data) == hashlib.sha256(data).hexdigest()


def test_many_streams_at_once(demo_machine: DemoMachine, guest: Guest) -> None:
    texts = [random.Random(number).randbytes(100_000) for number in range(20)]
    with ThreadPoolExecutor(len(texts)) as pool:
        digests = list(pool.map(lambda data: echoed(demo_machine, data), texts))
    assert digests == [hashlib.sha256(data).hexdigest() for data in texts]


def test_the_guest_calls_the_host(demo_machine: DemoMachine, guest: Guest) -> None:
    path = Path(f"{demo_machine.vsock_path}_6000")
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as pool:
        listener.bind(str(path))
        try:
            listener.listen()
            listener.settimeout(WAIT)
            caller = pool.submit(guest.run, ["python3", "-c", CALLER], timeout=WAIT)
            client, _ = listener.accept()
            with client, client.makefile("rb") as stream:
                data = stream.read()
                client.sendall(data[::-1])
                client.shutdown(socket.SHUT_WR)
        finally:
            path.unlink()
        assert data == b"x" * 1_000_000
        assert caller.result().text.strip() == hashlib.sha256(data).hexdigest()


def test_the_guest_calls_where_nobody_listens(guest: Guest) -> None:
    assert (
        guest.run(["python3", "-c", REFUSED], timeout=WAIT).text.strip() == "ConnectionResetError"
    )


def test_the_host_calls_where_nobody_listens(demo_machine: DemoMachine, guest: Guest) -> None:
    with pytest.raises(ConnectError, match="nothing listens on vsock port 7001"):
        dial(HybridVsock(str(demo_machine.vsock_path), 7001), WAIT)


def test_a_reboot_ends_streams_and_not_the_device(fresh_machine: type[DemoMachine]) -> None:
    with fresh_machine.start("reboot") as machine:
        device = machine.vsock_path.stat().st_ino
        stream = greeted(machine)
        with QmpClient.connect(Unix(str(machine.qmp_path))) as monitor:
            monitor.execute("system_reset")
        stream.settimeout(WAIT)
        try:
            assert stream.recv(1000) == b""
        except ConnectionLostError as error:
            assert "reset" in str(error)
        finally:
            stream.close()
        greeted(machine).close()
        assert machine.vsock_path.stat().st_ino == device


def greeted(machine: DemoMachine) -> Stream:
    """Connect to the guest's sshd as soon as it greets, and read its greeting."""
    deadline = Deadline(WAIT)
    while True:
        deadline.check("waiting for the guest's sshd")
        try:
            stream = dial(HybridVsock(str(machine.vsock_path), SSH_PORT), deadline)
        except ConnectError:
            time.sleep(0.05)
            continue
        try:
            stream.settimeout(deadline.remaining())
            greeting = b""
            while not greeting.endswith(b"\n"):
                byte = stream.recv(1)
                if not byte:
                    raise ConnectionLostError("the guest was not up yet")
                greeting += byte
        except ConnectionLostError:
            stream.close()
        else:
            assert greeting.startswith(b"SSH-2.0-")
            return stream
