"""TLS over any stream: who is believed, and what is no proper end."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scripted import END, Script
from tests.vnc.authority import Authority
from vmconnect.deadline import Deadline
from vmconnect.errors import (
    ConnectError,
    ConnectionLostError,
    DeadlineError,
    ResourceError,
    TargetError,
    TlsError,
    TrustError,
    VmconnectError,
)
from vmconnect.streams import SocketStream, Tls, Unix, certified, dial
from vmconnect.streams.layered import LayeredStream
from vmconnect.streams.tls import TlsLayer

from .far_ends import SECONDS, Pipe, TlsEnd, connected, listening


@contextlib.contextmanager
def served(
    directory: Path, context: ssl.SSLContext, endpoint: Tls
) -> Iterator[tuple[Pipe, TlsEnd]]:
    ends: list[TlsEnd] = []

    def accept(sock: socket.socket) -> TlsEnd:
        ends.append(TlsEnd(sock, context))
        return ends[0]

    with listening(directory / "s") as listener, connected(listener, endpoint, accept) as pipe:
        yield pipe, ends[0]


def refused(directory: Path, context: ssl.SSLContext, endpoint: Tls) -> VmconnectError:
    """Return the error of dialling a server that speaks TLS."""

    def accept(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with sock, contextlib.suppress(OSError):
            TlsEnd(sock, context).recv(1)

    with listening(directory / "s") as listener, ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(accept, listener)
        with pytest.raises(VmconnectError) as caught, contextlib.closing(dial(endpoint)) as stream:
            stream.recv(1)
        accepted.result(SECONDS)
    return caught.value


def test_a_server_with_another_name_is_not_believed(
    directory: Path, authority: Authority, server_context: ssl.SSLContext
) -> None:
    endpoint = Tls(Unix(str(directory / "s")), "other.test", authority.certificate)
    error = refused(directory, server_context, endpoint)
    assert isinstance(error, TrustError)
    assert "other.test" in str(error)


def test_a_server_of_an_unknown_authority_is_not_believed(
    directory: Path, server_context: ssl.SSLContext
) -> None:
    error = refused(directory, server_context, Tls(Unix(str(directory / "s")), "server.test"))
    assert isinstance(error, TrustError)
    assert "the system's list" in str(error)


def test_the_system_s_authorities_are_believed(
    directory: Path,
    authority: Authority,
    server_context: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    with served(directory, server_context, Tls(Unix(str(directory / "s")), "server.test")) as (
        pipe,
        _far,
    ):
        pipe.far.sendall(b"abc")
        assert pipe.stream.recv(3) == b"abc"


def test_a_client_s_certificate(directory: Path, authority: Authority, tmp_path: Path) -> None:
    server, key = authority.issue("server", "server.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server, key)
    context.load_verify_locations(authority.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    endpoint = Tls(Unix(str(directory / "s")), "server.test", authority.certificate)
    error = refused(directory, context, endpoint)
    # Its refusal, unless the connection was gone before it came.
    assert isinstance(error, TlsError | ConnectionLostError)
    (directory / "s").unlink()

    certificate, private = authority.issue("client", "ann")
    with served(directory, context, certified(endpoint, None, certificate, private)) as (pipe, _):  # type: ignore[arg-type]
        pipe.far.sendall(b"abc")
        assert pipe.stream.recv(3) == b"abc"

    locked = tmp_path / "locked.pem"
    subprocess.run(
        ["openssl", "pkey", "-in", private, "-aes128", "-passout", "pass:x", "-out", locked],
        check=True,
    )
    with pytest.raises(ResourceError, match="passphrase"):
        TlsLayer(Tls(Unix("/s"), "x", None, certificate, locked))
    with pytest.raises(ResourceError, match="cannot read"):
        TlsLayer(Tls(Unix("/s"), "x", tmp_path / "missing.pem"))


@pytest.mark.parametrize("name", ["", ".test", "a..b", "x" * 64])
def test_names_that_no_certificate_can_have(name: str) -> None:
    with pytest.raises(TargetError):
        TlsLayer(Tls(Unix("/s"), name))


def scripted(script: Script) -> LayeredStream:
    endpoint = Tls(Unix("/run/s"), "server.test")
    stream = LayeredStream(script, TlsLayer(endpoint), str(endpoint))
    script.deaf = True
    stream.establish(Deadline(SECONDS))
    return stream


def test_what_is_no_tls_server_is_told() -> None:
    with pytest.raises(TlsError, match="wrong version"):
        scripted(Script() << b"RFB 003.008\n")
    with pytest.raises(ConnectError, match="hung up"):
        scripted(Script() << END)
    with pytest.raises(ConnectError, match="hung up"):
        scripted(Script() << b"\x16\x03" << END)
    with pytest.raises(DeadlineError):
        scripted(Script())


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=4))
def test_any_server_is_an_error_of_ours(sent: list[bytes]) -> None:
    script = Script()
    for each in sent:
        script << b"\x16\x03\x03" + len(each).to_bytes(2) + each
    with pytest.raises(VmconnectError):
        scripted(script << END)


@pytest.fixture
def wired(
    authority: Authority, server_context: ssl.SSLContext
) -> Iterator[tuple[LayeredStream, TlsEnd, socket.socket]]:
    """Give a stream, its far end, and the far end's socket below TLS."""
    ours, theirs = socket.socketpair()
    endpoint = Tls(Unix("/run/s"), "server.test", authority.certificate)
    stream = LayeredStream(SocketStream(ours, "below"), TlsLayer(endpoint), str(endpoint))
    below = theirs.dup()
    with ThreadPoolExecutor(1) as pool, below:
        far = pool.submit(TlsEnd, theirs, server_context)
        stream.establish(Deadline(SECONDS))
        stream.settimeout(SECONDS)
        try:
            yield stream, far.result(SECONDS), below
        finally:
            stream.close()
            far.result(SECONDS).close()


def test_an_end_without_a_word_is_not_taken_for_one(
    wired: tuple[LayeredStream, TlsEnd, socket.socket],
) -> None:
    stream, far, below = wired
    far.sendall(b"abc")
    below.shutdown(socket.SHUT_WR)
    assert stream.recv(3) == b"abc"
    for _ in range(2):
        with pytest.raises(ConnectionLostError, match="broke off"):
            stream.recv(1)


def test_bytes_that_were_changed_on_the_way_are_not_taken(
    wired: tuple[LayeredStream, TlsEnd, socket.socket],
) -> None:
    stream, far, below = wired
    far.sendall(b"abc")
    below.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert stream.recv(10) == b"abc"
    with pytest.raises(TlsError):
        stream.recv(1)


def test_what_had_come_before_our_end_is_read_after_it(
    wired: tuple[LayeredStream, TlsEnd, socket.socket],
) -> None:
    stream, far, _below = wired
    far.sendall(b"a" * 100_000)
    assert stream.recv(1) == b"a"  # The rest is here, or will be.
    stream.shutdown_write()
    assert far.recv(1) == b""
    far.sendall(b"b")
    far.finish()
    rest = bytearray(100_001)
    assert stream.fill(memoryview(rest)) == 100_000
    assert rest[99_999:100_000] == b"b"
