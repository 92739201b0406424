"""VNC servers that the tests play: at a stream's far end, and one after another at a place."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable

from vmconnect.channel import ChannelState, StateChange
from vmconnect.deadline import Deadline
from vmconnect.errors import VmconnectError
from vmconnect.retry import Backoff, Heartbeat, Retry
from vmconnect.streams import SocketStream
from vmconnect.vnc import Console
from vmconnect.vnc.policy import Policy
from vmconnect.vnc.receipts import QUESTION
from vmconnect.vnc.route import Route

from .wire import SET_ENCODINGS, hello, long, noise, raw, rectangle, request, update, words

WIDTH, HEIGHT = 64, 48
PATIENCE = 20.0
QUICK = Backoff(0.001, 0.01)


class Server:
    """The far end of a console's stream, played by the test."""

    def __init__(self) -> None:
        self.socket, ours = socket.socketpair()
        self.socket.settimeout(PATIENCE)
        self.stream = SocketStream(ours, "the test")

    def open(self, deadline: Deadline) -> SocketStream:
        assert not deadline.passed
        return self.stream

    def say(self, data: bytes) -> None:
        self.socket.sendall(data)

    def hear(self, expected: bytes) -> None:
        heard = b""
        while len(heard) < len(expected):
            piece = self.socket.recv(len(expected) - len(heard))
            assert piece, f"the console hung up after {heard!r}"
            heard += piece
        assert heard == expected

    def welcome(self, picture: bool = True) -> None:
        """Say, before the console asks, all that it takes to let it in."""
        self.say(hello(WIDTH, HEIGHT))
        if picture:
            self.say(update(raw(0, 0, noise(WIDTH, HEIGHT))))

    def greeted(self, picture: bool = True) -> None:
        """Hear what a console says to a welcome."""
        self.hear(b"RFB 003.008\n\1\1" + SET_ENCODINGS + request(False, WIDTH, HEIGHT))
        if picture:
            self.hear(request(True, WIDTH, HEIGHT))


class Place:
    """Where one server after the other answers, or nobody, until the test lets one."""

    def __init__(self) -> None:
        self.waiting: queue.SimpleQueue[Server] = queue.SimpleQueue()
        self.refusal: VmconnectError | None = None
        self.heartbeat: Heartbeat | None = None
        self.policy = Policy()
        self.all: list[Server] = []

    def open(self, deadline: Deadline) -> Route:
        deadline.check("dialling")
        if self.refusal is not None:
            raise self.refusal
        server = Server()
        self.all.append(server)
        self.waiting.put(server)
        return Route(server.stream, self.policy, True, self.heartbeat)

    def next(self) -> Server:
        """The server that the console has connected to."""
        return self.waiting.get(timeout=PATIENCE)

    def welcome(self, seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> Server:
        """Let the next connection in, with a picture."""
        server = self.next()
        server.say(hello(width, height))
        server.hear(b"RFB 003.008\n\1\1" + SET_ENCODINGS + request(False, width, height))
        server.say(update(raw(0, 0, noise(width, height, seed))))
        server.hear(request(True, width, height))
        return server

    def console(self, **options: object) -> Console:
        """Open a console that comes back, and welcome it."""
        thread = threading.Thread(target=self.welcome)
        thread.start()
        retry = Retry(QUICK)
        console = Console.open(self.open, "web01", retry=retry, timeout=PATIENCE, **options)  # type: ignore[arg-type]
        thread.join()
        return console

    @property
    def last(self) -> Server:
        return self.all[-1]


def hang_up(server: Server) -> None:
    # Closing alone would wait for who is just reading from it.
    server.socket.shutdown(socket.SHUT_RDWR)
    server.socket.close()


def cut(place: Place, console: Console) -> None:
    """Let the server hang up, and see it noticed."""
    hang_up(place.last)
    until(console, ChannelState.RECONNECTING)


def until(console: Console, state: ChannelState) -> None:
    assert console._states.wait_for(lambda now: now is state, Deadline(PATIENCE))


def eventually(condition: Callable[[], bool]) -> None:
    deadline = Deadline(PATIENCE)
    while not condition():
        deadline.check("waiting for the condition")
        time.sleep(0.01)


def changes_of(console: Console) -> list[StateChange]:
    changes: list[StateChange] = []
    console.on_state(changes.append)
    return changes


class Reader(threading.Thread):
    """Hears all that the console sends to a server, and answers its questions while it is to."""

    def __init__(self, server: Server, *, resizable: bool = True) -> None:
        super().__init__()
        self.heard = bytearray()
        self.answering = True
        self.asked = 0
        self._server = server
        screen = words(0, 0) + words(0, 0) + words(WIDTH, HEIGHT) + long(0)
        self.answer = update(rectangle(0, 0, WIDTH, HEIGHT, -308, b"\1\0\0\0" + screen))
        if resizable:
            server.say(self.answer)  # It can be asked.
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while piece := self._server.socket.recv(1 << 16):
                self.heard += piece
                for _ in range(self.heard.count(QUESTION) - self.asked):
                    self.asked += 1
                    if self.answering:
                        self._server.say(self.answer)


def console_threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("vmconnect console")]
