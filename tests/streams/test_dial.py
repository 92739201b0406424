"""Dialling: every kind of endpoint that this machine can have, and how each one fails."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.scripted import END, Script
from vmconnect.deadline import Deadline
from vmconnect.errors import ConnectError, ConnectionLostError, DeadlineError
from vmconnect.streams import HybridVsock, Stream, Tcp, Unix, dial, dial_at_once
from vmconnect.streams.dial import _ask_hybrid


@contextlib.contextmanager
def server(
    family: int, address: str | tuple[str, int], serve: Callable[[socket.socket], None]
) -> Iterator[socket.socket]:
    """Serve one connection with ``serve`` in a thread."""
    listener = socket.socket(family)
    listener.bind(address)
    listener.listen()

    def run() -> None:
        with contextlib.suppress(OSError):
            connection, _peer = listener.accept()
            with connection:
                serve(connection)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield listener
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def echo_reversed(connection: socket.socket) -> None:
    data = b""
    while chunk := connection.recv(100):
        data += chunk
    connection.sendall(data[::-1])


def check_echo(stream: Stream) -> None:
    stream.sendall(b"abc")
    stream.shutdown_write()
    buffer = bytearray(10)
    stream.settimeout(5)
    assert stream.recv_into(memoryview(buffer)) == 3
    assert bytes(buffer[:3]) == b"cba"
    assert stream.recv(10) == b""
    stream.close()


def test_unix(directory: Path) -> None:
    path = str(directory / "s")
    with server(socket.AF_UNIX, path, echo_reversed):
        check_echo(dial(Unix(path), 5))


def test_unix_past_the_length_of_a_socket_address(directory: Path) -> None:
    deep = directory / ("d" * 100)
    deep.mkdir()
    short = directory / "s"
    with server(socket.AF_UNIX, str(short), echo_reversed):
        short.rename(deep / "s")
        check_echo(dial(Unix(str(deep / "s")), 5))


def test_a_full_queue_is_waited_for(directory: Path) -> None:
    path = str(directory / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        with contextlib.closing(dial(Unix(path), 5)):
            with pytest.raises(DeadlineError, match="took no call"):
                dial(Unix(path), 0.05)
            waiting = threading.Thread(target=lambda: dial(Unix(path), 30).close())
            waiting.start()
            listener.accept()[0].close()
            waiting.join()


def test_tcp() -> None:
    with server(socket.AF_INET, ("127.0.0.1", 0), echo_reversed) as listener:
        check_echo(dial(Tcp("127.0.0.1", listener.getsockname()[1]), 5))


def asked(script: Script) -> Script:
    """Make the handshake of hybrid vsock with a script."""
    _ask_hybrid(script, HybridVsock("/run/v", 22), Deadline(5))
    return script


def test_hybrid_vsock_begins_at_the_guest_s_first_byte() -> None:
    script = asked(Script() >> b"CONNECT 22\n" << b"OK 1073741824\nSSH-2.0")
    assert script.recv(10) == b"SSH-2.0"
    assert script.done


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (END, "nothing listens on vsock port 22"),
        (b"HTTP/1.1 400 Bad Request\n", "does not speak hybrid vsock"),
        (b"x" * 100, "does not speak hybrid vsock"),
        (b"OK \n", "does not speak hybrid vsock"),
    ],
)
def test_hybrid_vsock_refusals(answer: bytes, text: str) -> None:
    with pytest.raises(ConnectError, match=text):
        asked(Script() >> b"CONNECT 22\n" << answer)


def test_a_silent_device_meets_the_deadline(directory: Path) -> None:
    path = str(directory / "v")
    done = threading.Event()
    with server(socket.AF_UNIX, path, lambda _connection: void(done.wait(10))):
        with pytest.raises(DeadlineError):
            dial(HybridVsock(path, 22), 0.05)
        done.set()


def void(_value: object) -> None:
    """Drop a value."""


@pytest.mark.parametrize("endpoint", [Unix("/nonexistent/s"), HybridVsock("/nonexistent/s", 1)])
def test_a_missing_socket_says_what_to_look_at(endpoint: Unix | HybridVsock) -> None:
    with pytest.raises(ConnectError, match="is the machine running"):
        dial(endpoint, 5)


def test_a_refused_port(directory: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectError, match="refused"):
            dial(Tcp("127.0.0.1", taken.getsockname()[1]), 5)
    with pytest.raises(ConnectError, match="refused"):
        (directory / "s").touch()
        dial(Unix(str(directory / "s")), 5)


def test_a_name_that_is_no_host() -> None:
    with pytest.raises(ConnectError):
        dial(Tcp("host.invalid", 5900), 5)


def test_timeouts_and_breaks_are_ours(directory: Path) -> None:
    path = str(directory / "s")
    done = threading.Event()

    def serve(connection: socket.socket) -> None:
        done.wait(10)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with server(socket.AF_UNIX, path, serve):
        stream = dial(Unix(path), 5)
        stream.settimeout(0.02)
        with pytest.raises(DeadlineError):
            stream.recv(1)
        with pytest.raises(TimeoutError):  # What paramiko waits for.
            stream.recv(1)
        stream.settimeout(None)
        stream.sendall(b"never read")
        done.set()
        with pytest.raises(ConnectionLostError):
            while True:
                stream.recv(1)
                stream.sendall(b"x")
        stream.close()


def test_close_wakes_a_reader(directory: Path) -> None:
    path = str(directory / "s")
    done = threading.Event()
    with server(socket.AF_UNIX, path, lambda _connection: void(done.wait(10))):
        stream = dial(Unix(path), 5)
        got: list[object] = []

        def read() -> None:
            try:
                got.append(stream.recv(1))
            except ConnectionLostError as error:
                got.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        stream.close()
        reader.join(10)
        done.set()
        assert not reader.is_alive()
        assert len(got) == 1


@contextlib.contextmanager
def full(path: Path) -> Iterator[Callable[[], None]]:
    """A server whose backlog is full; what is given lets it take those who wait, and go on."""
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as stack:
        listener.bind(str(path))
        listener.listen(1)
        waiting = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                caller = stack.enter_context(socket.socket(socket.AF_UNIX))
                caller.setblocking(False)
                caller.connect(str(path))
                waiting += 1

        def take() -> None:
            for _ in range(waiting + 1):
                stack.enter_context(listener.accept()[0])

        yield take


def test_a_server_that_takes_no_calls_is_waited_for_until_the_deadline(directory: Path) -> None:
    endpoint = Unix(str(directory / "s"))
    with full(directory / "s") as take:
        assert dial_at_once(endpoint) is None
        with pytest.raises(DeadlineError, match="may be stuck"):
            dial(endpoint, 0.1)
        thread = threading.Timer(0.1, take)
        thread.start()
        dial(endpoint, 60).close()
        thread.join()
    with pytest.raises(ConnectError, match="Connection refused"):
        dial_at_once(endpoint)


def test_who_does_not_wait_reaches_long_paths_too(directory: Path) -> None:
    deep = directory / ("x" * 60) / ("y" * 60)
    deep.mkdir(parents=True)
    with contextlib.chdir(deep), socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        listener.listen()
        stream = dial_at_once(Unix(str(deep / "s")))
        assert stream is not None
        with listener.accept()[0] as peer:
            stream.sendall(b"hello")
            assert peer.recv(5) == b"hello"
        stream.close()
    with pytest.raises(ConnectError, match="No such file"):
        dial_at_once(Unix(str(directory / "none" / ("z" * 200) / "s")))
