"""Forwards and the proxy beside OpenSSH's own, over the same sshd or the same guest, in one run.

Prints a table; writes JSON where asked. ::

    python -m bench.forward [--rounds N] [--megabytes N] [--guest] [--json FILE]

Without ``--guest`` the far end is a real sshd of this host behind a hybrid vsock socket, and this
side of the connection is what is measured; with it, it is the demo guest behind our vsock device.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.guest import VMCONNECT, Figure, rate, rounds, table, timed
from tests.direct.forward.rig import played_guest
from vmconnect.demo import DemoMachine, build
from vmconnect.direct import Guest
from vmconnect.session import Session, TrustStore, connect

# In the guest: says as many zeros as it is asked for in the first line, or takes as many.
SERVER = """
import socket, sys, threading
def serve(c):
    with c, c.makefile("rb") as asked:
        word, count = asked.readline().split()
        left = int(count)
        if word == b"give":
            block = bytes(1 << 18)
            while left:
                left -= c.send(block[:left])
        else:
            while left:
                left -= len(asked.read1(1 << 18))
            c.sendall(b".")
s = socket.create_server(("127.0.0.1", 0))
print(s.getsockname()[1], flush=True)
def accept():
    while True:
        threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
threading.Thread(target=accept, daemon=True).start()
sys.stdin.read()
"""
# The plainest proxy there is: nc, with the handshake of hybrid vsock before it.
NC = """#!/bin/bash
{ printf 'CONNECT 22\\n'; cat; } | nc -U "$1" | { IFS= read -r -N 1 c
while [ "$c" != $'\\n' ]; do IFS= read -r -N 1 c; done; exec cat; }
"""


class Far:
    """The far end: how we and ssh come there."""

    def __init__(self, guest: Guest, target: str, path: Path, key: Path, room: Path):
        self.guest, self.target = guest, target
        script = room / "nc-proxy"
        script.write_text(NC)
        script.chmod(0o755)
        self.options = [
            *("-F", "none", "-i", str(key), "-l", guest.login.user),
            *("-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no"),
            *("-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"),
        ]
        self.login = ["-l", guest.login.user, "-i", str(key), "--accept-new-host-key"]
        self.env = {**os.environ, "XDG_STATE_HOME": str(room)}
        python = os.path.realpath(sys.executable)
        ours = f"{python} -m vmconnect proxy"
        environment = f"env PYTHONPATH={os.pathsep.join(sys.path)}"
        self.proxies = {
            "vmconnect_proxy_handing_over": [
                *("-o", f"ProxyCommand={environment} {ours} --fdpass {target}"),
                *("-o", "ProxyUseFdpass=yes"),
            ],
            "vmconnect_proxy": ["-o", f"ProxyCommand={environment} {ours} {target}"],
            "nc": ["-o", f"ProxyCommand={script} {path}"],
        }

    def ssh(self, proxy: str, *words: str) -> list[str]:
        """Return the argv of ssh by this proxy."""
        return ["ssh", *self.options, *self.proxies[proxy], *words]


def take(port: int, size: int) -> None:
    """Have the far end give that many bytes."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"give %d\n" % size)
        buffer = memoryview(bytearray(1 << 18))
        left = size
        while left:
            count = sock.recv_into(buffer)
            assert count
            left -= count


def give(port: int, size: int) -> None:
    """Have the far end take that many bytes."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"take %d\n" % size)
        block = bytes(1 << 18)
        left = size
        while left:
            left -= sock.send(block[:left])
        assert sock.recv(1) == b"."


def many(port: int, count: int) -> None:
    """Connect that often at once, in as many threads, and get a byte from each."""
    threads = [threading.Thread(target=take, args=(port, 1)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextlib.contextmanager
def forwarded_by_ssh(far: Far, port: int) -> Iterator[int]:
    """Give the port of an ``ssh -L``, by the proxy that costs least."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        ours = free.getsockname()[1]
    words = ["-N", "-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{ours}:127.0.0.1:{port}"]
    with subprocess.Popen(far.ssh("vmconnect_proxy_handing_over", *words, "far")) as process:
        try:
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    take(ours, 1)
                    break
                time.sleep(0.05)
            yield ours
        finally:
            process.terminate()


@contextlib.contextmanager
def forwarded_by_us(far: Far, port: int) -> Iterator[int]:
    """Give the port of a ``vmconnect forward``."""
    words = ["--json", "-L", f"0:127.0.0.1:{port}", *far.login, far.target]
    with subprocess.Popen(
        [VMCONNECT, "forward", *words], stdout=subprocess.PIPE, env=far.env
    ) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["port"]
        finally:
            process.terminate()


@contextlib.contextmanager
def served(guest: Guest) -> Iterator[int]:
    """Run the server in the guest, and give its port."""
    line = bytearray()
    there = threading.Event()
    over: queue.Queue[bytes] = queue.Queue()

    def sink(data: bytes) -> None:
        line.extend(data)
        there.set()

    def serve() -> None:
        guest.run(["python3", "-c", SERVER], stdin=iter(over.get, b""), stdout=sink)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert there.wait(60)
        yield int(line)
    finally:
        over.put(b"")  # Its input ends, and it does.
        thread.join()


def measure(far: Far, number: int, size: int) -> list[Figure]:
    """Let all take turns."""
    figures: list[Figure] = []
    with (
        served(far.guest) as port,
        forwarded_by_us(far, port) as ours,
        forwarded_by_ssh(far, port) as theirs,
    ):
        figures += rounds(
            4 * number,
            "a connection through a forward, to its first byte",
            "ms",
            vmconnect_forward=timed(lambda: take(ours, 1)),
            ssh_forward=timed(lambda: take(theirs, 1)),
        )
        figures += rounds(
            number,
            "64 such at once",
            "ms",
            vmconnect_forward=timed(lambda: many(ours, 64)),
            ssh_forward=timed(lambda: many(theirs, 64)),
        )
        figures += rounds(
            number,
            "forward, guest to host",
            "MB/s",
            vmconnect_forward=rate(size, lambda: take(ours, size)),
            ssh_forward=rate(size, lambda: take(theirs, size)),
        )
        figures += rounds(
            number,
            "forward, host to guest",
            "MB/s",
            vmconnect_forward=rate(size, lambda: give(ours, size)),
            ssh_forward=rate(size, lambda: give(theirs, size)),
        )

    def ran(proxy: str, command: str) -> Callable[[], object]:
        argv = far.ssh(proxy, "far", command)
        return lambda: subprocess.run(
            argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )

    figures += rounds(
        number,
        "ssh true, whole process",
        "ms",
        **{proxy: timed(ran(proxy, "true")) for proxy in far.proxies},
    )
    zeros = f"head -c {size} /dev/zero"
    figures += rounds(
        number,
        "ssh, guest to host, whole process",
        "MB/s",
        **{proxy: rate(size, ran(proxy, zeros)) for proxy in far.proxies},
    )
    return figures


@contextlib.contextmanager
def far_end(in_guest: bool, room: Path) -> Iterator[Far]:
    """Give the far end."""
    if not in_guest:
        with played_guest() as played, played.logged_in() as guest:
            yield Far(guest, played.target, played.path, played.key, room)
        return
    with DemoMachine.start("bench-forward", image=build()) as machine:
        found = connect(f"qemu:{machine.qmp_path}").machine
        with Session(found, TrustStore(room / "known")) as session:
            guest = session.guest(timeout=120, wait=True)
            target, path = f"qemu:{machine.qmp_path}", machine.vsock_path
            yield Far(guest, target, path, machine.client_key, room)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--guest", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="vmc-") as name,
        far_end(arguments.guest, Path(name)) as far,
    ):
        figures = measure(far, arguments.rounds, arguments.megabytes << 20)
    print(table(figures))
    if arguments.json:
        rows = [{**vars(figure), "median": figure.median} for figure in figures]
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
