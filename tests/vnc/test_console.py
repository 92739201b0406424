"""The console over real sockets, with servers that we write ourselves."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from vmconnect.channel import ChannelState
from vmconnect.deadline import Deadline
from vmconnect.errors import (
    AuthenticationError,
    ClosedError,
    ConnectError,
    ConnectionLostError,
    DeadlineError,
    ResourceError,
    RfbError,
    UnsupportedError,
    VmconnectError,
)
from vmconnect.streams import SocketStream
from vmconnect.vnc import Console
from vmconnect.vnc.events import Bell, Event, PointerMode, Resized, Screen, UpdateDone
from vmconnect.vnc.messages import (
    client_cut_text,
    key_event,
    pointer_event,
    set_desktop_size,
)
from vmconnect.vnc.security.vncauth import response

from .played import HEIGHT, PATIENCE, WIDTH, Server, console_threads
from .wire import (
    hello,
    long,
    noise,
    raw,
    rectangle,
    request,
    string,
    update,
    words,
)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.socket.close()
    server.stream.close()


@pytest.fixture
def pair(server: Server) -> Iterator[tuple[Server, Console]]:
    server.welcome()
    with Console.open(server.open, "web01", local=True) as console:
        server.greeted()
        yield server, console
    assert not console_threads()


@contextlib.contextmanager
def events_of(console: Console) -> Iterator[list[Event]]:
    events: list[Event] = []
    console.subscribe(events.append)
    yield events
    console.unsubscribe(events.append)


def failure(server: Server, timeout: float = PATIENCE, **options: str) -> VmconnectError:
    with pytest.raises(VmconnectError) as caught:
        Console.open(server.open, "web01", local=True, timeout=timeout, **options)  # type: ignore[arg-type]
    assert caught.value.machine == "web01"
    assert server.stream.fileno() == -1
    assert not console_threads()
    return caught.value


def test_a_console_is_open_when_it_has_a_picture(pair: tuple[Server, Console]) -> None:
    _, console = pair
    assert console.state is ChannelState.READY
    assert console.alive
    assert console.size == (console.width, console.height) == (WIDTH, HEIGHT)
    assert console.desktop_name == "desk"
    np.testing.assert_array_equal(console.pixels(0), noise(WIDTH, HEIGHT))


def test_a_picture_that_is_late_is_not_waited_for(server: Server) -> None:
    server.welcome(picture=False)
    with Console.open(server.open, "web01", local=True, timeout=1) as console:
        with pytest.raises(DeadlineError, match="web01: the screen did not come"):
            console.pixels(0.01)
        server.say(update(raw(0, 0, noise(WIDTH, HEIGHT))))
        np.testing.assert_array_equal(console.pixels(PATIENCE), noise(WIDTH, HEIGHT))


def test_password(server: Server) -> None:
    challenge = bytes(range(16))

    def answer() -> None:
        server.say(b"RFB 003.008\n\1\2" + challenge)
        server.hear(b"RFB 003.008\n\2" + response(challenge, "secret"))
        init = hello(WIDTH, HEIGHT)[14:]
        server.say(init + update(raw(0, 0, noise(WIDTH, HEIGHT))))

    thread = threading.Thread(target=answer)
    thread.start()
    with Console.open(server.open, "web01", password=lambda: "secret") as console:
        assert console.alive
        assert "secret" not in repr(vars(console)) + repr(vars(console._engine))
    thread.join()


def test_nobody_answers(server: Server) -> None:
    error = failure(server, timeout=0.05)
    assert isinstance(error, DeadlineError)


def test_a_server_that_stalls(server: Server) -> None:
    server.say(hello(WIDTH, HEIGHT)[:30])
    assert isinstance(failure(server, timeout=0.1), DeadlineError)


def test_the_time_for_a_password_is_not_counted(server: Server) -> None:
    server.say(b"RFB 003.008\n\1\2" + bytes(16) + long(1) + string(b"no"))
    waited = threading.Event()

    def ask() -> str:
        waited.wait(0.6)
        return "x"

    with pytest.raises(AuthenticationError):
        Console.open(server.open, "web01", password=ask, timeout=0.5)


def test_a_wrong_password(server: Server) -> None:
    server.say(b"RFB 003.008\n\1\2" + bytes(16) + long(1) + string(b"Authentication failed"))
    error = failure(server, password="wrong")  # noqa: S106 (a test's)
    assert isinstance(error, AuthenticationError)
    assert "Authentication failed" in str(error)
    assert "wrong" not in repr(error)


def test_no_vnc_server(server: Server) -> None:
    server.say(b"SSH-2.0-OpenSSH_9.2\r\n")
    error = failure(server)
    assert isinstance(error, RfbError)
    assert "SSH-2.0-OpenSSH_9.2" in str(error)


def test_a_server_that_hangs_up(server: Server) -> None:
    server.say(b"RFB 003.008\n")
    server.socket.shutdown(socket.SHUT_WR)
    error = failure(server)
    assert isinstance(error, ConnectionLostError)
    assert "while Security was awaited" in str(error)


def test_a_server_that_breaks_with_its_first_picture(server: Server) -> None:
    server.say(hello(WIDTH, HEIGHT) + b"\x99")
    assert isinstance(failure(server), RfbError)


def test_nobody_there() -> None:
    def refuse(_deadline: Deadline) -> SocketStream:
        raise ConnectError("nobody there")

    with pytest.raises(ConnectError, match="web01: nobody there"):
        Console.open(refuse, "web01")


def test_events_come_to_subscribers(pair: tuple[Server, Console]) -> None:
    server, console = pair
    with events_of(console) as events:
        server.say(update(raw(8, 8, noise(2, 2))))
        console.wait_for(lambda _: len(events) == 1, PATIENCE)
        server.say(b"\2")
        console.wait_for(lambda _: len(events) == 2, PATIENCE)
    server.say(b"\2")
    server.say(update(raw(0, 0, noise(WIDTH, HEIGHT, 2))))
    console.wait_for(lambda console: console.framebuffer.generation == 3, PATIENCE)
    assert [type(event) for event in events] == [UpdateDone, Bell]


def test_a_late_subscriber_is_told_what_lasts(pair: tuple[Server, Console]) -> None:
    server, console = pair
    server.say(update(rectangle(0, 0, 1, 1, -257)) + update(raw(0, 0, noise(1, 1))))
    console.wait_for(lambda console: console.framebuffer.generation == 2, PATIENCE)
    assert not console.mouse.absolute
    with events_of(console) as events:
        assert events == [PointerMode(False)]


def test_a_subscriber_that_fails_is_logged(
    pair: tuple[Server, Console], caplog: pytest.LogCaptureFixture
) -> None:
    server, console = pair

    def broken(_event: Event) -> None:
        raise ValueError("my mistake")

    console.subscribe(broken)
    with events_of(console) as events, caplog.at_level(logging.ERROR):
        server.say(b"\2")
        console.wait_for(lambda _: bool(events), PATIENCE)
    assert "my mistake" in caplog.text
    assert console.alive


def test_wait_for_update(pair: tuple[Server, Console]) -> None:
    server, console = pair
    with pytest.raises(DeadlineError, match="web01"):
        console.wait_for_update(0.01)
    timer = threading.Timer(0.05, server.say, [update(raw(0, 0, noise(4, 4, 9)))])
    timer.start()
    console.wait_for_update(PATIENCE)
    np.testing.assert_array_equal(console.pixels(0)[:4, :4], noise(4, 4, 9))
    timer.join()


def test_input_goes_out_in_order(pair: tuple[Server, Console]) -> None:
    server, console = pair
    console.keyboard.press("a")
    console.mouse.move(3, 4)
    console.clipboard.put("é\r\n")
    console.type("b")
    console.request_update()
    server.hear(key_event(True, 0x61) + key_event(False, 0x61) + pointer_event(0, 3, 4))
    server.hear(client_cut_text(b"\xe9\n") + key_event(True, 0x62) + key_event(False, 0x62))
    server.hear(request(False, WIDTH, HEIGHT))


def test_close_lets_go_of_what_is_held(server: Server) -> None:
    server.welcome()
    console = Console.open(server.open, "web01", local=True)
    server.greeted()
    console.keyboard.down("ctrl")
    console.mouse.down()
    console.close()
    console.close()
    server.hear(key_event(True, 0xFFE3) + pointer_event(1, 0, 0))
    server.hear(key_event(False, 0xFFE3) + pointer_event(0, 0, 0))
    assert server.socket.recv(1) == b""
    assert console.state is ChannelState.CLOSED
    assert console.reason is None
    assert not console_threads()


@pytest.mark.parametrize(
    "use",
    [
        lambda console: console.keyboard.press("a"),
        lambda console: console.mouse.move(1, 1),
        lambda console: console.pixels(),
        lambda console: console.wait_for_update(PATIENCE),
        lambda console: console.wait_for(lambda _: False),
        lambda console: console.request_update(),
        lambda console: console.clipboard.put("x"),
    ],
)
def test_a_closed_console_says_so(server: Server, use: Callable[[Console], None]) -> None:
    server.welcome()
    console = Console.open(server.open, "web01", local=True)
    console.close()
    with pytest.raises(ClosedError):
        use(console)


@pytest.mark.parametrize(
    ("last_words", "kind", "text"),
    [
        (b"", ConnectionLostError, "message type"),
        (b"\x99", RfbError, "unknown message type 153"),
        (update(raw(0, 0, noise(8, 8)))[:100], ConnectionLostError, "FramebufferUpdate"),
    ],
)
def test_the_end_wakes_who_waits(
    server: Server, last_words: bytes, kind: type[VmconnectError], text: str
) -> None:
    server.welcome()
    console = Console.open(server.open, "web01", local=True)
    caught: list[VmconnectError] = []

    def wait() -> None:
        with pytest.raises(kind, match=text) as error:
            console.wait_for(lambda _: False)
        caught.append(error.value)

    thread = threading.Thread(target=wait)
    thread.start()
    server.say(last_words)
    server.socket.shutdown(socket.SHUT_WR)
    thread.join()
    assert console.reason is caught[0]
    assert console.reason.machine == "web01"
    assert not console.alive
    with pytest.raises(kind):
        console.pixels()
    console.close()
    assert console.reason is caught[0]
    assert not console_threads()


def test_closing_from_a_subscriber(server: Server) -> None:
    server.welcome()
    console = Console.open(server.open, "web01", local=True)
    console.subscribe(lambda _: console.close())
    server.say(b"\2")
    with pytest.raises(ClosedError):
        console.wait_for(lambda _: False, PATIENCE)
    console.close()
    assert not console_threads()


def test_closing_in_the_midst_of_much_work(server: Server) -> None:
    """Copies of a large screen, a megabyte of them, would take minutes."""
    side = 4096
    server.say(hello(side, side))
    console = Console.open(server.open, "web01", local=True, timeout=0.5)
    bomb = update(rectangle(0, 0, side, side, 1, words(0, 0)) * 65535, count=65535)

    def throw() -> None:
        with contextlib.suppress(OSError):
            server.say(bomb)

    thread = threading.Thread(target=throw)
    thread.start()
    while not console.framebuffer._updating:
        time.sleep(0.01)
    console.close()
    server.socket.close()
    thread.join()


def test_a_server_that_does_not_read_ends_the_console(server: Server) -> None:
    server.welcome()
    console = Console.open(server.open, "web01", local=True)
    with pytest.raises(ConnectionLostError, match="no longer reads"):
        for _ in range(20):
            console.clipboard.put("x" * (1 << 20))
    assert isinstance(console.reason, ConnectionLostError)
    console.close()


def test_a_server_that_writes_and_does_not_read_is_still_read(server: Server) -> None:
    server.welcome()
    with Console.open(server.open, "web01", local=True) as console:
        for _ in range(4):
            console.clipboard.put("x" * (1 << 20))
        for seed in range(50):
            server.say(update(raw(0, 0, noise(WIDTH, HEIGHT, seed))))
        console.wait_for(lambda console: console.framebuffer.generation == 51, PATIENCE)


def test_screenshot(pair: tuple[Server, Console], tmp_path: Path) -> None:
    _, console = pair
    console.screenshot(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ResourceError, match="cannot write"):
        console.screenshot(tmp_path / "none" / "a.png")


def test_resize(pair: tuple[Server, Console]) -> None:
    server, console = pair
    with pytest.raises(UnsupportedError, match="cannot be asked"):
        console.resize(32, 32)
    head = Screen(7, 0, 0, WIDTH, HEIGHT, 9)
    layout = b"\1\0\0\0" + words(0, 7, 0, 0, WIDTH, HEIGHT, 0, 9)
    server.say(update(rectangle(0, 0, WIDTH, HEIGHT, -308, layout)))
    console.wait_for(lambda console: console.screens == (head,), PATIENCE)
    server.hear(request(True, WIDTH, HEIGHT))

    def answer(status: int) -> None:
        server.hear(set_desktop_size(32, 24, [Screen(7, 0, 0, 32, 24, 9)]))
        reply = b"\1\0\0\0" + words(0, 7, 0, 0, 32, 24, 0, 9)
        server.say(update(rectangle(1, status, 32, 24, -308, reply)))
        server.hear(request(True, WIDTH, HEIGHT))

    thread = threading.Thread(target=answer, args=[1])
    thread.start()
    with pytest.raises(UnsupportedError, match="does not allow"):
        console.resize(32, 24, PATIENCE)
    thread.join()
    assert console.size == (WIDTH, HEIGHT)
    with events_of(console) as events:
        thread = threading.Thread(target=answer, args=[0])
        thread.start()
        console.resize(32, 24, PATIENCE)
        thread.join()
    assert console.size == (32, 24)
    assert [type(event) for event in events] == [Resized]


def test_the_clipboard_has_limits(pair: tuple[Server, Console]) -> None:
    _, console = pair
    with pytest.raises(UnsupportedError, match="Latin-1"):
        console.clipboard.put("€")
    with pytest.raises(UnsupportedError, match="1048577 bytes"):
        console.clipboard.put("x" * ((1 << 20) + 1))


def test_threads_that_decode_end_with_the_connection(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 1})
    stream = zlib.compressobj()

    def compressed(seed: int) -> bytes:
        data = stream.compress(noise(WIDTH, HEIGHT, seed).tobytes())
        data += stream.flush(zlib.Z_SYNC_FLUSH)
        return rectangle(0, 0, WIDTH, HEIGHT, 6) + long(len(data)) + data

    def decoders() -> list[str]:
        names = [thread.name for thread in threading.enumerate()]
        return [name for name in names if name.startswith("vmconnect decode")]

    server.welcome()
    with Console.open(server.open, "web01", local=True) as console:
        end = time.monotonic() + PATIENCE
        # Only what comes together is shared.
        while not decoders():
            assert time.monotonic() < end
            server.say(update(*(compressed(seed) for seed in range(4))))
        server.socket.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionLostError):
            console.wait_for(lambda _: False, PATIENCE)
        assert np.array_equal(console.framebuffer.pixels, noise(WIDTH, HEIGHT, 3))
    assert not decoders()
