"""A console that outlives its connections, with servers that we play."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from vmconnect.channel import ChannelState
from vmconnect.errors import (
    AuthenticationError,
    ConnectError,
    ConnectionLostError,
    DeadlineError,
    RfbError,
    TrustError,
    VmconnectError,
)
from vmconnect.retry import Retry
from vmconnect.vnc import Console
from vmconnect.vnc.events import AudioOffered, Connected, Event, Resized
from vmconnect.vnc.extensions.audio import SampleFormat, audio_enable, audio_format
from vmconnect.vnc.messages import key_event, pointer_event
from vmconnect.vnc.security.vncauth import response

from .played import HEIGHT, PATIENCE, QUICK, WIDTH, Place, changes_of, cut, hang_up, until
from .wire import hello, long, noise, raw, rectangle, request, string, update


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
