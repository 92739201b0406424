"""Forwards into a real guest and out of it, where nothing but vsock connects the two."""

from __future__ import annotations

import socket
import subprocess
import threading

import pytest

import vmconnect
from vmconnect.demo import DemoMachine
from vmconnect.streams import Tcp

pytestmark = pytest.mark.guest

WAIT = 60.0
SERVER = """
import http.server, sys, threading
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
print(server.server_port, flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
"""


def test_there_and_back(demo_machine: DemoMachine) -> None:
    said: list[bytes] = []
    ready, over = threading.Event(), threading.Event()

    def note(data: bytes) -> None:
        said.append(data)
        ready.set()

    def until_over() -> list[bytes]:
        over.wait(WAIT)
        return []

    with vmconnect.connect(demo_machine.name) as session:
        guest = session.guest(timeout=WAIT)
        words = ["sh", "-c", 'cd /etc && exec python3 -c "$0"', SERVER]
        errors: list[bytes] = []
        serving = threading.Thread(
            target=lambda: guest.run(
                words,
                stdin=(each for step in (until_over,) for each in step()),
                stdout=note,
                stderr=errors.append,
            )
        )
        serving.start()
        try:
            assert ready.wait(WAIT), errors
            port = int(b"".join(said))
            with guest.forward(f"0:localhost:{port}") as web, guest.forward("0", "D") as socks:
                assert isinstance(web.bound, Tcp)
                assert isinstance(socks.bound, Tcp)
                direct = f"http://127.0.0.1:{web.bound.port}/hostname"
                by_socks = ["--socks5-hostname", f"127.0.0.1:{socks.bound.port}"]
                for curl in ([direct], [*by_socks, f"http://localhost:{port}/hostname"]):
                    page = subprocess.run(
                        ["curl", "-sS", "-m", "60", *curl],
                        capture_output=True,
                        text=True,
                        check=False,
                    )
                    assert (page.stdout, page.stderr) == ("demo\n", "")
        finally:
            over.set()
            serving.join(WAIT)
        with socket.create_server(("127.0.0.1", 0)) as server:

            def greet() -> None:
                for _ in range(2):
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(b"from the host")

            threading.Thread(target=greet, daemon=True).start()
            here = f"127.0.0.1:{server.getsockname()[1]}"
            with guest.forward(f"0:{here}", "R") as tcp:
                assert isinstance(tcp.bound, Tcp)
                asked = ["socat", "-u", f"TCP:127.0.0.1:{tcp.bound.port}", "-"]
                assert guest.run(asked, timeout=WAIT).text == "from the host"
            with guest.forward(f"/tmp/forward.sock:{here}", "R"):
                asked = ["socat", "-u", "UNIX-CONNECT:/tmp/forward.sock", "-"]
                assert guest.run(asked, timeout=WAIT).text == "from the host"
            guest.run(["rm", "/tmp/forward.sock"])
