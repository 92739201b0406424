"""A console that outlives its connections, with servers that we play."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from vmconnect.channel import ChannelState, StateChange
from vmconnect.deadline import CancelScope, Deadline
from vmconnect.errors import (
    AuthenticationError,
    ClosedError,
    ConnectError,
    ConnectionLostError,
    DeadlineError,
    RfbError,
    TrustError,
    UnsupportedError,
    VmconnectError,
)
from vmconnect.retry import Backoff, Heartbeat, Retry
from vmconnect.vnc import Console
from vmconnect.vnc.events import AudioOffered, Connected, Event, Resized
from vmconnect.vnc.extensions.audio import SampleFormat, audio_enable, audio_format
from vmconnect.vnc.messages import key_event, pointer_event
from vmconnect.vnc.policy import Policy
from vmconnect.vnc.receipts import QUESTION
from vmconnect.vnc.route import Route
from vmconnect.vnc.security.vncauth import response

from .test_console import HEIGHT, PATIENCE, WIDTH, Server, console_threads
from .wire import SET_ENCODINGS, hello, long, noise, raw, rectangle, request, string, update, words

QUICK = Backoff(0.001, 0.01)


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


@pytest.fixture
def place() -> Iterator[Place]:
    place = Place()
    yield place
    for server in place.all:
        server.socket.close()
        assert server.stream.fileno() == -1
    assert not console_threads()


@pytest.fixture
def console(place: Place) -> Iterator[Console]:
    with place.console() as console:
        yield console


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


def test_it_is_the_same_console_with_another_picture(place: Place, console: Console) -> None:
    framebuffer, keyboard = console.framebuffer, console.keyboard
    np.testing.assert_array_equal(console.pixels(0), noise(WIDTH, HEIGHT, 0))
    changes = changes_of(console)
    cut(place, console)
    # The window goes on showing what was; nobody else takes it for the screen.
    np.testing.assert_array_equal(framebuffer.pixels, noise(WIDTH, HEIGHT, 0))
    with pytest.raises(DeadlineError, match=r"still reconnecting .*closed the connection"):
        console.pixels(0.01)
    server = place.welcome(seed=1)
    console.wait_ready(PATIENCE)
    np.testing.assert_array_equal(console.pixels(PATIENCE), noise(WIDTH, HEIGHT, 1))
    assert (console.framebuffer, console.keyboard) == (framebuffer, keyboard)
    console.keyboard.press("a")
    server.hear(key_event(True, 0x61) + key_event(False, 0x61))
    assert [change.after.value for change in changes] == ["lost", "reconnecting", "ready"]
    assert isinstance(changes[0].reason, ConnectionLostError)
    assert console.reason is None


def test_who_waits_waits_on(place: Place, console: Console) -> None:
    seen: list[np.ndarray[tuple[int, ...], np.dtype[np.uint32]]] = []

    def wait() -> None:
        console.wait_for(
            lambda each: each.framebuffer.generation == 3 and each.state is ChannelState.READY,
            PATIENCE,
        )
        seen.append(console.pixels(PATIENCE))

    def take() -> None:
        seen.append(console.pixels(PATIENCE))

    cut(place, console)
    threads = [threading.Thread(target=each) for each in (wait, take, take)]
    for thread in threads:
        thread.start()
    place.welcome(seed=1).say(update(raw(0, 0, noise(WIDTH, HEIGHT, 2))))
    for thread in threads:
        thread.join()
    assert len(seen) == 3
    for picture in seen:
        assert any(np.array_equal(picture, noise(WIDTH, HEIGHT, seed)) for seed in (1, 2))


def test_a_deadline_is_met_though_the_connection_is_lost(place: Place, console: Console) -> None:
    place.refusal = ConnectError("nobody there")
    hang_up(place.last)
    until(console, ChannelState.LOST)
    with pytest.raises(DeadlineError, match="nobody there"):
        console.wait_for(lambda each: each.framebuffer.generation > 5, 0.1)
    with pytest.raises(DeadlineError, match="web01"):
        console.wait_for_update(0.01)


@pytest.mark.parametrize(
    "use",
    [
        lambda console: console.type("x"),
        lambda console: console.keyboard.press("a"),
        lambda console: console.keyboard.up("a"),
        lambda console: console.mouse.move(1, 1),
        lambda console: console.mouse.click(),
        lambda console: console.clipboard.put("x"),
        lambda console: console.request_update(),
        lambda console: console.request_update(incremental=True),
        lambda console: console.confirm(),
    ],
)
def test_what_cannot_be_sent_is_said_at_once(
    place: Place, console: Console, use: Callable[[Console], None]
) -> None:
    cut(place, console)
    with pytest.raises(ConnectionLostError, match="web01: the console is not connected") as caught:
        use(console)
    assert "closed the connection" in str(caught.value)
    server = place.welcome()
    console.wait_ready(PATIENCE)
    # And it does not come late.
    console.keyboard.press("z")
    server.hear(key_event(True, 0x7A) + key_event(False, 0x7A))


def test_what_is_held_is_let_go_with_the_connection(place: Place, console: Console) -> None:
    changes = changes_of(console)
    console.keyboard.down("ctrl")
    console.keyboard.down("ä")
    console.mouse.down("left")
    console.mouse.down("right")
    cut(place, console)
    assert changes[0].lost.released == ("ctrl", "ä", "left and right button")
    assert console.keyboard.held == ()
    server = place.welcome()
    console.wait_ready(PATIENCE)
    console.mouse.move(1, 2)
    server.hear(pointer_event(0, 1, 2))


def test_a_key_that_is_held_across_a_loss_is_told(place: Place, console: Console) -> None:
    with (
        pytest.raises(ConnectionLostError, match="ctrl was let go"),
        console.keyboard.hold("ctrl"),
    ):
        cut(place, console)
        place.welcome()
        console.wait_ready(PATIENCE)
    console.keyboard.press("a")
    place.last.hear(key_event(True, 0x61) + key_event(False, 0x61))


def test_a_text_is_typed_into_one_connection_or_it_is_told(place: Place, console: Console) -> None:
    first = place.last
    failed: list[VmconnectError] = []

    def type_it() -> None:
        try:
            console.keyboard.type("abc", interval=0.3)
        except VmconnectError as error:
            failed.append(error)

    thread = threading.Thread(target=type_it)
    thread.start()
    first.hear(key_event(True, 0x61) + key_event(False, 0x61))
    # Lost and back between two strokes.
    cut(place, console)
    server = place.welcome()
    console.wait_ready(PATIENCE)
    thread.join()
    (error,) = failed
    assert isinstance(error, ConnectionLostError)
    assert "1 of 3 characters were typed" in str(error)
    console.keyboard.press("z")
    server.hear(key_event(True, 0x7A) + key_event(False, 0x7A))


def test_another_size_is_told(place: Place, console: Console) -> None:
    events: list[Event] = []
    console.subscribe(events.append)
    cut(place, console)
    place.welcome(1, 32, 24)
    np.testing.assert_array_equal(console.pixels(PATIENCE), noise(32, 24, 1))
    told = [event for event in events if isinstance(event, Connected | Resized)]
    assert told == [Connected(32, 24, "desk"), Resized(32, 24, changed=True)]
    assert console.size == (32, 24)
    cut(place, console)
    place.welcome(2, 32, 24)
    console.pixels(PATIENCE)
    assert Resized(32, 24, changed=False) in events


# What ends it for good.


def test_a_refused_login_ends_it(place: Place) -> None:
    with place.console(password="wrong") as console:  # noqa: S106 (a test's)
        cut(place, console)
        server = place.next()
        server.say(b"RFB 003.008\n\1\2" + bytes(16) + long(1) + string(b"go away"))
        until(console, ChannelState.CLOSED)
        with pytest.raises(AuthenticationError, match=r"web01.*go away"):
            console.wait_for(lambda _: False, PATIENCE)
        with pytest.raises(AuthenticationError):
            console.type("x")
        assert place.waiting.empty()


def test_a_server_that_is_none_ends_it(place: Place, console: Console) -> None:
    cut(place, console)
    place.next().say(b"SSH-2.0-OpenSSH_9.2\r\n")
    with pytest.raises(RfbError):
        console.wait_for(lambda _: False, PATIENCE)


def test_what_was_proved_has_to_be_proved_again(place: Place, console: Console) -> None:
    """Nobody who has cut the link can put a server in its place that proves nothing."""
    console._connector._proved = True  # As it is after a certificate.
    cut(place, console)
    place.next().say(hello(WIDTH, HEIGHT))
    with pytest.raises(TrustError, match="do not prove who it is"):
        console.wait_for(lambda _: False, PATIENCE)


def test_a_broken_message_ends_it(place: Place, console: Console) -> None:
    place.last.say(b"\x99")
    until(console, ChannelState.CLOSED)
    assert isinstance(console.reason, RfbError)


# Who we are is asked once.


def test_a_person_is_asked_once(place: Place) -> None:
    asked: list[int] = []
    challenge = bytes(range(16))

    def ask() -> str:
        asked.append(1)
        return "secret"

    def let_in() -> None:
        server = place.next()
        server.say(b"RFB 003.008\n\1\2" + challenge)
        server.hear(b"RFB 003.008\n\2" + response(challenge, "secret"))
        server.say(hello(WIDTH, HEIGHT)[14:] + update(raw(0, 0, noise(WIDTH, HEIGHT))))

    thread = threading.Thread(target=let_in)
    thread.start()
    retry = Retry(QUICK)
    with Console.open(place.open, "web01", password=ask, retry=retry, timeout=PATIENCE) as console:
        thread.join()
        for _ in range(2):
            cut(place, console)
            let_in()
            console.wait_ready(PATIENCE)
    assert len(asked) == 1


# Beginning, and ending.


def test_opening_waits_for_a_server(place: Place) -> None:
    place.refusal = ConnectError("nobody there")
    retry = Retry(QUICK)
    with pytest.raises(ConnectError, match="web01: nobody there"):
        Console.open(place.open, "web01", retry=retry, wait=True, timeout=0.05)
    thread = threading.Thread(target=place.welcome)
    thread.start()
    timer = threading.Timer(0.05, setattr, [place, "refusal", None])
    timer.start()
    with Console.open(
        place.open, "web01", retry=Retry(QUICK), wait=True, timeout=PATIENCE
    ) as console:
        assert console.state is ChannelState.READY
    thread.join()
    timer.join()


def test_a_console_without_a_connection_yet(place: Place) -> None:
    place.refusal = ConnectError("nobody there")
    with Console.open(place.open, "web01", retry=Retry(QUICK), at_once=True) as console:
        events: list[Event] = []
        console.subscribe(events.append)
        assert console.size == (0, 0)
        until(console, ChannelState.LOST)
        with pytest.raises(ConnectionLostError, match=r"not connected .*nobody there"):
            console.type("x")
        place.refusal = None
        place.welcome()
        np.testing.assert_array_equal(console.pixels(PATIENCE), noise(WIDTH, HEIGHT))
        assert Resized(WIDTH, HEIGHT, changed=True) in events


def in_the_midst_of_dialling(place: Place) -> None:
    time.sleep(0.05)


def in_the_midst_of_a_greeting(place: Place) -> None:
    place.next().say(b"RFB 003.008\n")


def in_the_midst_of_a_picture(place: Place) -> None:
    server = place.next()
    server.say(hello(WIDTH, HEIGHT))
    server.hear(b"RFB 003.008\n\1\1" + SET_ENCODINGS + request(False, WIDTH, HEIGHT))
    server.say(update(raw(0, 0, noise(WIDTH, HEIGHT)))[:100])


MOMENTS = [in_the_midst_of_dialling, in_the_midst_of_a_greeting, in_the_midst_of_a_picture]


@pytest.mark.parametrize("reach", MOMENTS)
@pytest.mark.parametrize("again", [False, True])
def test_closing_at_any_moment(place: Place, reach: Callable[[Place], None], again: bool) -> None:
    """The first time and when it comes back; nothing waits for a deadline."""
    console = place.console() if again else None
    opener: Callable[[Deadline], Route] = place.open
    if reach is in_the_midst_of_dialling:
        opener = hanging
    if console is None:
        console = Console.open(opener, "web01", retry=Retry(QUICK), at_once=True)
    else:
        console._connector._opener = opener
        hang_up(place.last)
    reach(place)
    closer = threading.Thread(target=console.close)
    closer.start()
    closer.join(PATIENCE)
    assert not closer.is_alive()
    assert console.state is ChannelState.CLOSED
    assert console.reason is None


def hanging(deadline: Deadline) -> Route:
    """Dial what never answers, as the dialler does."""
    over = threading.Event()
    with deadline.waking(over.set):
        over.wait()
    deadline.check("dialling")
    raise AssertionError("it was not cancelled")


@pytest.mark.parametrize("reach", MOMENTS[1:])
def test_a_scope_ends_the_opening(place: Place, reach: Callable[[Place], None]) -> None:
    scope, failed = CancelScope(), []

    def open_it() -> None:
        try:
            Console.open(place.open, "web01", scope=scope, timeout=PATIENCE, retry=Retry()).close()
        except VmconnectError as error:
            failed.append(error)

    thread = threading.Thread(target=open_it)
    thread.start()
    reach(place)
    scope.cancel()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    if reach is in_the_midst_of_a_greeting:
        assert isinstance(failed[0], ClosedError | ConnectionLostError)


def test_a_person_who_is_asked_holds_nobody_up(place: Place) -> None:
    asked, answer = threading.Event(), threading.Event()

    def ask() -> str:
        asked.set()
        answer.wait(PATIENCE)
        return "late"

    console = Console.open(place.open, "web01", password=ask, retry=Retry(QUICK), at_once=True)
    place.next().say(b"RFB 003.008\n\1\2" + bytes(16))
    assert asked.wait(PATIENCE)
    console.close()
    assert console.state is ChannelState.CLOSED
    answer.set()
    console._thread.join(PATIENCE)
    assert not console._thread.is_alive()


# Nothing is lost that was acknowledged.


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


def settled(console: Console) -> None:
    """Wait until no answer can be taken for another: the console knows how to ask."""
    console.wait_for(lambda each: each._engine.resizable, PATIENCE)
    connection = console._connection
    assert connection is not None
    connection._receipts._disturbed_at = -100.0


def test_what_is_confirmed_has_been_read(place: Place, console: Console) -> None:
    reader = Reader(place.last)
    settled(console)
    changes = changes_of(console)
    console.keyboard.type("ab", interval=0)
    console.mouse.click()
    console.clipboard.put("x")
    console.confirm(PATIENCE)
    assert key_event(True, 0x62) in reader.heard
    reader.answering = False
    console.keyboard.type("cD\n", interval=0)
    console.mouse.move(3, 3)
    console.mouse.click("right")
    cut(place, console)
    reader.join()
    lost = changes[0].lost
    assert (lost.unsent, lost.uncertain) == ((), ("c", "shift", "D", "enter", "right button"))
    assert lost.released == ()


def test_what_has_not_left_is_told_apart(place: Place, console: Console) -> None:
    """A server that reads no more: first the kernel takes what is sent, then nobody does."""
    changes = changes_of(console)
    console.keyboard.press("a")
    for _ in range(3):
        console.clipboard.put("x" * (1 << 20))
    console.keyboard.press("b")
    hang_up(place.last)
    until(console, ChannelState.RECONNECTING)
    lost = changes[0].lost
    assert lost.uncertain[:2] == ("a", "clipboard")
    assert lost.unsent[-1] == "b"
    assert len(lost.uncertain) + len(lost.unsent) == 5


def test_confirming_fails_with_the_connection(place: Place, console: Console) -> None:
    reader = Reader(place.last)
    settled(console)
    reader.answering = False
    console.type("x")
    timer = threading.Timer(0.05, hang_up, [place.last])
    timer.start()
    with pytest.raises(ConnectionLostError, match="before all had been read"):
        console.confirm(PATIENCE)
    timer.join()
    reader.join()


def test_a_server_that_cannot_be_asked(console: Console) -> None:
    console.confirm()  # Nothing was sent.
    console.type("x")
    with pytest.raises(UnsupportedError, match="cannot be asked"):
        console.confirm()


def test_a_server_that_says_nothing_is_given_up(place: Place) -> None:
    """A link that is cut without a word: what was sent goes nowhere, and nothing comes."""
    place.heartbeat = Heartbeat(0.05, 0.1)
    with place.console() as console:
        reader = Reader(place.last)
        changes = changes_of(console)
        # While it answers it may be silent for as long as it likes.
        eventually(lambda: reader.asked >= 5)
        assert changes == []
        reader.answering = False
        until(console, ChannelState.RECONNECTING)
        assert "has not answered for" in str(changes[0].reason)
        reader.join()
        place.welcome()
        console.wait_ready(PATIENCE)


@pytest.mark.parametrize("resizable", [False, True])
def test_a_server_that_answers_with_pixels_alone_is_there(place: Place, resizable: bool) -> None:
    """As one that does not say its size again; and what it sends shows nowhere."""
    place.heartbeat = Heartbeat(0.05, 0.2)
    with place.console() as console:
        reader = Reader(place.last, resizable=resizable)
        pixels = noise(WIDTH, HEIGHT)[:1, :1]
        reader.answer = update(raw(0, 0, pixels))
        events: list[Event] = []
        console.subscribe(events.append)
        if resizable:
            until(console, ChannelState.LOST)  # It has said that it would.
        else:
            eventually(lambda: reader.asked >= 8)
            assert console.state is ChannelState.READY
            assert not events
        hang_up(place.all[0])
        reader.join()


def test_a_server_of_this_host_may_stand_still(place: Place) -> None:
    place.heartbeat = Heartbeat(0.02, None)
    with place.console() as console:
        reader = Reader(place.last)
        reader.answering = False
        console.type("x")
        eventually(lambda: reader.asked >= 1)
        time.sleep(0.3)
        assert console.state is ChannelState.READY
        hang_up(place.last)
        reader.join()


# What else comes back, and what does not.


def test_sound_is_asked_for_again(place: Place, console: Console) -> None:
    offer = update(rectangle(0, 0, 0, 0, -259))
    place.last.say(offer)
    console.wait_for(lambda each: each._engine.audible, PATIENCE)
    place.last.hear(request(True, WIDTH, HEIGHT))
    console.listen(form=SampleFormat.U8, channels=1, frequency=8000)
    wanted = audio_format(SampleFormat.U8, 1, 8000) + audio_enable(True)
    place.last.hear(wanted)
    for enabled in (True, False):
        cut(place, console)
        server = place.welcome()
        events: list[Event] = []
        console.subscribe(events.append)
        server.say(offer)
        console.wait_for(lambda _, told=events: AudioOffered() in told, PATIENCE)  # type: ignore[misc]
        if enabled:
            server.hear(request(True, WIDTH, HEIGHT) + wanted)
            console.listen(enable=False)
            server.hear(audio_enable(False))
        else:
            server.hear(request(True, WIDTH, HEIGHT))
        console.unsubscribe(events.append)


def test_a_recording_is_of_one_connection(place: Place) -> None:
    heard = bytearray()
    with place.console(tap=heard.extend) as console:
        first = bytes(heard)
        assert first
        cut(place, console)
        place.welcome(seed=1)
        console.pixels(PATIENCE)
    assert heard == first
