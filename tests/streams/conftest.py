"""Streams of every kind, with their other ends."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.vnc.authority import Authority
from vmconnect.streams import (
    HybridVsock,
    SshHost,
    Tcp,
    Tls,
    Unix,
    WebSocket,
    through,
)

from .far_ends import Pipe, PlainEnd, TlsEnd, WebSocketEnd, connected, listening
from .far_host import FarHost, far_host


@pytest.fixture
def directory() -> Iterator[Path]:
    """Give a directory whose paths are short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="vmc-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give a CA that has made out a certificate to server.test."""
    authority = Authority(tmp_path_factory.mktemp("ca") / "ca")
    authority.issue("server", "server.test")
    return authority


@pytest.fixture(scope="session")
def server_context(authority: Authority) -> ssl.SSLContext:
    """Give the TLS server's side of it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(
        authority.directory / "server-cert.pem", authority.directory / "server-key.pem"
    )
    return context


@pytest.fixture(scope="session")
def kvm7() -> Iterator[FarHost]:
    """Give another host that can be reached by ssh."""
    with tempfile.TemporaryDirectory(prefix="vmc-") as name, far_host(Path(name)) as host:
        yield host


Maker = Callable[[pytest.FixtureRequest, Path], contextlib.AbstractContextManager[Pipe]]


@contextlib.contextmanager
def _tcp(_request: pytest.FixtureRequest, _directory: Path) -> Iterator[Pipe]:
    with (
        listening() as listener,
        connected(listener, Tcp(*listener.getsockname()), PlainEnd) as pipe,
    ):
        yield pipe


@contextlib.contextmanager
def _unix(_request: pytest.FixtureRequest, directory: Path) -> Iterator[Pipe]:
    path = directory / "s"
    with listening(path) as listener, connected(listener, Unix(str(path)), PlainEnd) as pipe:
        yield pipe


@contextlib.contextmanager
def _hybrid(_request: pytest.FixtureRequest, directory: Path) -> Iterator[Pipe]:
    path = directory / "s"

    def accept(sock: socket.socket) -> PlainEnd:
        assert sock.recv(100) == b"CONNECT 22\n"
        sock.sendall(b"OK 1073741824\n")
        return PlainEnd(sock)

    with (
        listening(path) as listener,
        connected(listener, HybridVsock(str(path), 22), accept) as pipe,
    ):
        yield pipe


@contextlib.contextmanager
def _tls(request: pytest.FixtureRequest, directory: Path) -> Iterator[Pipe]:
    path = directory / "s"
    context = request.getfixturevalue("server_context")
    endpoint = Tls(Unix(str(path)), "server.test", request.getfixturevalue("authority").certificate)
    with (
        listening(path) as listener,
        connected(listener, endpoint, lambda sock: TlsEnd(sock, context)) as pipe,
    ):
        yield pipe


@contextlib.contextmanager
def _ws(_request: pytest.FixtureRequest, _directory: Path) -> Iterator[Pipe]:
    with listening() as listener:
        host, port = listener.getsockname()
        endpoint = WebSocket.at(f"ws://{host}:{port}/websockify")
        with connected(listener, endpoint, lambda sock: WebSocketEnd(PlainEnd(sock))) as pipe:
            yield pipe


@contextlib.contextmanager
def _wss(request: pytest.FixtureRequest, _directory: Path) -> Iterator[Pipe]:
    context = request.getfixturevalue("server_context")
    authority = request.getfixturevalue("authority").certificate
    with listening() as listener:
        tls = Tls(Tcp(*listener.getsockname()), "server.test", authority)
        endpoint = WebSocket(tls, "server.test")
        with connected(
            listener, endpoint, lambda sock: WebSocketEnd(TlsEnd(sock, context))
        ) as pipe:
            yield pipe


@contextlib.contextmanager
def _ssh_unix(request: pytest.FixtureRequest, directory: Path) -> Iterator[Pipe]:
    path = directory / "s"
    host = SshHost(request.getfixturevalue("kvm7").name)
    with (
        listening(path) as listener,
        connected(listener, through(host, Unix(str(path))), PlainEnd) as pipe,
    ):
        yield pipe


@contextlib.contextmanager
def _ssh_tcp(request: pytest.FixtureRequest, _directory: Path) -> Iterator[Pipe]:
    host = SshHost(request.getfixturevalue("kvm7").name)
    with listening() as listener:
        endpoint = through(host, Tcp(*listener.getsockname()))
        with connected(listener, endpoint, PlainEnd) as pipe:
            yield pipe


@contextlib.contextmanager
def _tls_ssh(request: pytest.FixtureRequest, directory: Path) -> Iterator[Pipe]:
    path = directory / "s"
    host = SshHost(request.getfixturevalue("kvm7").name)
    context = request.getfixturevalue("server_context")
    tls = Tls(Unix(str(path)), "server.test", request.getfixturevalue("authority").certificate)
    with (
        listening(path) as listener,
        connected(listener, through(host, tls), lambda sock: TlsEnd(sock, context)) as pipe,
    ):
        yield pipe


KINDS: dict[str, Maker] = {
    "tcp": _tcp,
    "unix": _unix,
    "hybrid-vsock": _hybrid,
    "tls": _tls,
    "ws": _ws,
    "wss": _wss,
    "ssh-unix": _ssh_unix,
    "ssh-tcp": _ssh_tcp,
    "tls-ssh": _tls_ssh,
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Give the name of a kind of stream."""
    return str(request.param)


@pytest.fixture
def pipe(kind: str, request: pytest.FixtureRequest, directory: Path) -> Iterator[Pipe]:
    """Give a stream of that kind, and its other end."""
    with KINDS[kind](request, directory) as pipe:
        yield pipe
