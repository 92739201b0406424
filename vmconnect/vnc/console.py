"""The console: a machine's screen, keyboard and mouse over RFB."""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from vmconnect.channel import Channel, ChannelState
from vmconnect.deadline import Deadline
from vmconnect.errors import (
    ClosedError,
    DeadlineError,
    ResourceError,
    UnsupportedError,
    VmconnectError,
)
from vmconnect.secret import forget_frames
from vmconnect.streams import Stream
from vmconnect.vnc import messages
from vmconnect.vnc.clipboard import ConsoleClipboard
from vmconnect.vnc.credentials import Answer, Credentials, concealed
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.events import (
    CursorShape,
    Event,
    LedState,
    PointerMode,
    Resized,
    ResizeReason,
    ResizeStatus,
    Screen,
    UpdateDone,
)
from vmconnect.vnc.extensions.audio import SampleFormat, audio_enable, audio_format
from vmconnect.vnc.extensions.xvp import PowerAction, xvp
from vmconnect.vnc.framebuffer import Framebuffer, Pixels, rgb
from vmconnect.vnc.keyboard import Keyboard
from vmconnect.vnc.link import LADDER, LOCAL, Link
from vmconnect.vnc.mouse import Mouse
from vmconnect.vnc.outbox import Outbox
from vmconnect.vnc.png import encode_png
from vmconnect.vnc.policy import Policy
from vmconnect.vnc.preference import Preference
from vmconnect.vnc.screen_text import read_text
from vmconnect.vnc.states import State

__all__ = ["Console", "Subscriber"]

Subscriber = Callable[[Event], None]

P = ParamSpec("P")
R = TypeVar("R")

_LOG = logging.getLogger(__name__)

# What takes longer than to copy what is there already has been waited for (seconds, and for each
# megabyte once more).
_COPYING = 2e-4

# More hardly ever have something to do: a server sends few rectangles at once that are worth it.
_MOST_THREADS = 4

# How long close() waits for the last key releases to be taken (seconds).
_FAREWELL = 1.0

_LASTING = (CursorShape, PointerMode, LedState)

# How long open() waits for the first picture, and with it for all that the server tells of
# itself: whether it takes scancodes, say (seconds).
_SETTLING = 1.0

_REFUSALS = {
    ResizeStatus.PROHIBITED: "the server does not allow it",
    ResizeStatus.OUT_OF_RESOURCES: "the server is out of resources",
    ResizeStatus.INVALID_LAYOUT: "the server takes no such size",
    ResizeStatus.UNKNOWN: "the server gives an unknown reason",
}


class Console(Channel):
    """A live connection to a machine's screen; made by `open`, safe to use from any thread.

    A thread reads and decodes, so ``framebuffer`` is always as the server last told. ``keyboard``,
    ``mouse`` and ``clipboard`` never wait for the network. What ends the connection is in
    ``reason`` and raised by whatever waits or sends.
    """

    def __init__(self, machine: str, stream: Stream, engine: Engine, link: Link):
        super().__init__(machine)
        self._stream = stream
        self._engine = engine
        self.link = link
        self.keyboard = Keyboard(engine, self._send)
        self.mouse = Mouse(engine, self._send)
        self.clipboard = ConsoleClipboard(machine, engine, self._send)
        self._subscribers: list[Subscriber] = []
        # What a later subscriber has to know, by kind.
        self._present: dict[type[Event], Event] = {}
        self._telling = threading.RLock()
        # Encrypted bytes have to go in the order in which they were encrypted.
        self._sealing = threading.Lock()
        self._pulse = threading.Condition()
        self._pulses = 0
        self._outbox = Outbox(stream, f"vmconnect console {machine}: send", self._fail)
        self._reader = threading.Thread(
            target=self._read, name=f"vmconnect console {machine}: read", daemon=True
        )

    @classmethod
    def open(
        cls,
        opener: Callable[[Deadline], Stream],
        machine: str,
        *,
        password: Answer = None,
        user: Answer = None,
        policy: Policy | None = None,
        preference: Preference | None = None,
        local: bool = False,
        shared: bool = True,
        timeout: Deadline | float | None = 10.0,
        framebuffer: Framebuffer | None = None,
        tap: Callable[[memoryview], object] | None = None,
    ) -> Self:
        """Connect by ``opener``, log in, and return the console when the server has let us in.

        A callable ``password`` or ``user`` is called, in this thread, only if the server wants
        one; the time that it takes, or that the policy's ``check_key`` takes, does not count.
        ``policy`` says what the server must prove (see `vmconnect.vnc.policy.Policy`). What
        encodings are asked for follows from ``preference`` and from how fast the link turns out
        to be (``console.link``), or is if it is ``local``. ``shared`` leaves other clients
        connected. ``tap`` is the engine's: `Recorder.write`, say, which records the session.

        Raises what ``opener`` does; DeadlineError if the server does not answer in time,
        RfbError if it is no VNC server or a broken one, AuthenticationError if it refuses the
        login, TrustError if the policy does, ConnectError if it refuses us, ConnectionLostError
        if it hangs up.
        """
        password, user = concealed(password), concealed(user)
        clock = _Clock(Deadline.of(timeout))
        credentials = Credentials(clock.stopped(password), clock.stopped(user))
        policy = policy or Policy()
        if policy.check_key is not None:
            policy = replace(policy, check_key=clock.stopping(policy.check_key))
        link = Link(preference, LOCAL if local else LADDER)
        engine = Engine(
            credentials,
            policy=policy,
            framebuffer=framebuffer,
            shared=shared,
            encodings=link.choice.numbers,
            threads=min(_MOST_THREADS, len(os.sched_getaffinity(0))),
            tap=tap,
        )
        try:
            stream = opener(clock.deadline)
            try:
                _shake_hands(stream, engine, clock)
            except BaseException:
                stream.close()
                raise
        except VmconnectError as error:
            raise error.with_machine(machine) from error.__cause__
        console = cls(machine, stream, engine, link)
        try:
            console._start(clock.deadline)
        except BaseException:
            console.close()
            raise
        return console

    # The screen.

    @property
    def alive(self) -> bool:
        """Whether the connection has not ended."""
        return self.state is not ChannelState.CLOSED

    @property
    def framebuffer(self) -> Framebuffer:
        """The screen's pixels, live."""
        return self._engine.framebuffer

    @property
    def width(self) -> int:
        """The screen's width in pixels."""
        return self._engine.framebuffer.width

    @property
    def height(self) -> int:
        """The screen's height in pixels."""
        return self._engine.framebuffer.height

    @property
    def size(self) -> tuple[int, int]:
        """The screen's width and height in pixels."""
        height, width = self._engine.framebuffer.pixels.shape
        return width, height

    @property
    def desktop_name(self) -> str:
        """What the server calls the desktop."""
        return self._engine.name

    @property
    def login(self) -> str:
        """The name of the login that was made: None, VncAuth, X509Plain..."""
        return self._engine.login.name

    @property
    def encrypted(self) -> bool:
        """Whether all that is said is encrypted."""
        return self._engine.tunnelled

    @property
    def received(self) -> int:
        """How many bytes the server has sent, as they were before encryption."""
        return self._engine.inbox.offset

    @property
    def screens(self) -> tuple[Screen, ...]:
        """The heads within the screen, where the server describes them."""
        return self._engine.screens

    def pixels(self, timeout: Deadline | float | None = 10.0) -> Pixels:
        """Return a copy of the screen, never half an update: (height, width) 0x00RRGGBB words.

        Waits for the first update of the screen if it has not come yet. Raises DeadlineError, or
        what ended the connection.
        """
        try:
            picture = self.framebuffer.snapshot(timeout)
        except DeadlineError as error:
            raise error.with_machine(self.machine) from error.__cause__
        self._check_alive()
        return picture

    def rgb(self, timeout: Deadline | float | None = 10.0) -> NDArray[np.uint8]:
        """Return `pixels` as an array (height, width, 3) of red, green, blue bytes."""
        return rgb(self.pixels(timeout))

    def screenshot(self, path: str | Path, timeout: Deadline | float | None = 10.0) -> None:
        """Write the screen to a PNG file, as `pixels` gives it.

        Raises also ResourceError if the file cannot be written.
        """
        picture = self.rgb(timeout)
        if not picture.size:
            raise ResourceError("the screen has no pixels to save", machine=self.machine)
        try:
            Path(path).write_bytes(encode_png(picture))
        except OSError as error:
            raise ResourceError(f"cannot write {path}: {error.strerror}") from error

    def text(self, timeout: Deadline | float | None = 10.0) -> list[str] | None:
        """Return the lines of the screen, exactly, if it is a VGA text screen; else None."""
        return read_text(self.pixels(timeout))

    def request_update(self, incremental: bool = False) -> None:
        """Ask the server for the whole screen again, or for what has changed.

        Changes come without being asked for.
        """
        self._send(messages.framebuffer_update_request(incremental, 0, 0, *self.size))

    def request_size(self, width: int, height: int, screens: Sequence[Screen] = ()) -> None:
        """Ask for another size of the screen, and let a `Resized` event tell what came of it.

        ``screens`` are the heads within it, at most 255; without them there is one.

        Raises UnsupportedError if the server has not said that it can be asked, or cannot be
        asked for so much.
        """
        if not self._engine.resizable:
            raise UnsupportedError(
                "its VNC server cannot be asked for another size",
                machine=self.machine,
                hint="set the size inside the guest",
            )
        if not screens:
            first = self._engine.screens[0] if self._engine.screens else Screen(0, 0, 0, 0, 0)
            screens = [Screen(first.id, 0, 0, width, height, first.flags)]
        try:
            message = messages.set_desktop_size(width, height, screens)
        except struct.error as error:
            raise UnsupportedError(
                f"no screen can be {width}x{height} with {len(screens)} heads",
                machine=self.machine,
                hint="at most 65535 pixels a side and 255 heads can be asked for",
            ) from error
        self._send(message)

    def resize(
        self,
        width: int,
        height: int,
        timeout: Deadline | float | None = 10.0,
        screens: Sequence[Screen] = (),
    ) -> ResizeStatus:
        """Ask for another size of the screen, as `request_size` does, and wait for the answer.

        Returns OK when the screen has it, FORWARDED when the guest was told and may follow later
        or never. Raises UnsupportedError if the server refuses, DeadlineError.
        """
        answers: list[Resized] = []

        def note(event: Event) -> None:
            if isinstance(event, Resized) and event.reason is ResizeReason.THIS_CLIENT:
                answers.append(event)

        self.subscribe(note)
        try:
            self.request_size(width, height, screens)
            self.wait_for(lambda _: bool(answers), timeout)
        finally:
            self.unsubscribe(note)
        status = answers[0].status
        if status in _REFUSALS:
            raise UnsupportedError(
                f"the screen cannot be {width}x{height}: {_REFUSALS[status]}",
                machine=self.machine,
            )
        return status

    # What is typed and told to the machine.

    def type(self, text: str) -> None:
        r"""Type a text on the keyboard; "\n" is Enter. See `Keyboard.type`."""
        self.keyboard.type(text)

    def power(self, action: PowerAction) -> None:
        """Ask the server to shut down, reboot or reset the machine (xvp).

        Raises UnsupportedError if it has not said that it can.
        """
        if not self._engine.powerable:
            raise UnsupportedError(
                "its VNC server cannot be asked to do that",
                machine=self.machine,
                hint="use the hypervisor, or the guest's own commands",
            )
        self._send(xvp(action))

    def listen(
        self,
        enable: bool = True,
        form: SampleFormat = SampleFormat.S16,
        channels: int = 2,
        frequency: int = 44100,
    ) -> None:
        """Ask for what the machine plays, which then comes as `AudioData` events, or for no more.

        Raises UnsupportedError if the server has not said that it can send it.
        """
        if not self._engine.audible:
            raise UnsupportedError("its VNC server sends no sound", machine=self.machine)
        if enable:
            self._send(audio_format(form, channels, frequency))
        self._send(audio_enable(enable))

    # What happens.

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call ``subscriber`` with every later event, in the reading thread.

        It is called at once, in this thread, with the last pointer shape, pointer mode and
        keyboard lights that the server has told before. It must return soon: nothing is read
        meanwhile. Until it returns from an `UpdateDone` the framebuffer does not change.
        """
        with self._telling:
            for event in self._present.values():
                subscriber(event)
            self._subscribers.append(subscriber)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Call ``subscriber`` no more; nothing happens if it is none."""
        with contextlib.suppress(ValueError):
            self._subscribers.remove(subscriber)

    def wait_for(
        self, predicate: Callable[[Console], bool], timeout: Deadline | float | None = None
    ) -> None:
        """Wait until ``predicate(console)`` holds; it is asked after every event.

        Raises DeadlineError, or what ended the connection (ClosedError after a plain close).
        """
        deadline = Deadline.of(timeout)
        while True:
            pulses, alive = self._pulses, self.alive
            if predicate(self):
                return
            if not alive:
                self._check_alive()
            with self._pulse:
                self._pulse.wait_for(
                    lambda before=pulses: self._pulses != before,  # type: ignore[misc]
                    deadline.remaining(),
                )
                if self._pulses == pulses and deadline.passed:
                    raise DeadlineError(
                        "what was waited for did not come in time", machine=self.machine
                    )

    def wait_for_update(self, timeout: Deadline | float | None = None) -> None:
        """Wait until the next update from now on is drawn. Raises as `wait_for` does."""
        before = self.framebuffer.generation
        self.wait_for(lambda console: console.framebuffer.generation != before, timeout)

    def refresh(self, timeout: Deadline | float | None = None) -> None:
        """Ask for the whole screen again, and wait until an update that came since is drawn.

        Raises as `wait_for` does.
        """
        before = self.framebuffer.generation
        self.request_update()
        self.wait_for(lambda console: console.framebuffer.generation != before, timeout)

    # The connection's life.

    def close(self) -> None:
        """Let go of keys and buttons, end the connection and its threads."""
        with contextlib.suppress(VmconnectError):
            self.keyboard.release()
            self.mouse.release()
        self._end()
        self._engine.cancel()
        self._outbox.finish(_FAREWELL)
        self._stream.close()
        self.framebuffer.abandon()
        self._wake()
        self._outbox.join()
        if self._reader is not threading.current_thread():
            self._reader.join()

    def _start(self, deadline: Deadline) -> None:
        """Start the threads, and let the first picture come if it comes soon."""
        self._enter(ChannelState.READY)
        self._outbox.start()
        self._reader.start()
        with contextlib.suppress(DeadlineError):
            self.wait_for(lambda console: console.framebuffer.drawn, deadline.sooner(_SETTLING))

    def _send(self, data: bytes) -> None:
        self._check_alive()
        try:
            with self._sealing:
                self._outbox.put(self._engine.seal(data))
        except VmconnectError as error:
            self._fail(error)
            raise

    def _check_alive(self) -> None:
        if not self.alive:
            raise self._reason or ClosedError("the console is closed", machine=self.machine)

    def _read(self) -> None:
        """Read until the end; the reading thread."""
        engine, stream, link = self._engine, self._stream, self.link
        try:
            while True:
                buffer = engine.next_buffer()
                asked = time.monotonic()
                count = stream.fill(buffer) if engine.patient else stream.recv_into(buffer)
                if not count:
                    raise engine.receive_end()
                came = time.monotonic()
                link.received(count, came, waited=came - asked > _COPYING * (1 + count / 2**20))
                try:
                    events = engine.received(count)
                except VmconnectError:
                    self._tell(engine.events())
                    raise
                if any(isinstance(event, UpdateDone) for event in events) and link.update_ended():
                    engine.offer(link.choice.numbers)
                with self._sealing:
                    if out := engine.data_to_send():
                        self._outbox.put(out)
                self._tell(events)
        except VmconnectError as error:
            self._fail(error)
        finally:
            engine.close()

    def _tell(self, events: list[Event]) -> None:
        with self._telling:
            for event in events:
                self.clipboard.take(event)
                if isinstance(event, _LASTING):
                    self._present[type(event)] = event
                for subscriber in tuple(self._subscribers):
                    try:
                        subscriber(event)
                    except Exception:  # noqa: BLE001 (its mistake must not end the console)
                        _LOG.exception("a subscriber of %s failed at %s", self.machine, event)
        if events:
            self._wake()

    def _wake(self) -> None:
        with self._pulse:
            self._pulses += 1
            self._pulse.notify_all()

    def _fail(self, error: VmconnectError) -> None:
        """End the channel for ``error``, unless it has ended; from any thread."""
        self._end(error)
        self._outbox.finish(0)
        self._stream.close()
        self.framebuffer.abandon()
        self._wake()


class _Clock:
    """A deadline that stands still while a person is asked."""

    def __init__(self, deadline: Deadline):
        self.deadline = deadline

    def stopped(self, secret: Answer) -> Answer:
        """Let a secret's being asked for take no time."""
        return self.stopping(secret) if callable(secret) else secret

    def stopping(self, function: Callable[P, R]) -> Callable[P, R]:
        """Let a function take no time."""

        def stopped(*args: P.args, **kwargs: P.kwargs) -> R:
            left = self.deadline.remaining()
            try:
                return function(*args, **kwargs)
            finally:
                self.deadline = Deadline(left)

        return stopped


def _shake_hands(stream: Stream, engine: Engine, clock: _Clock) -> None:
    """Drive the engine until it is in NORMAL, within the deadline."""
    while engine.state is not State.NORMAL:
        doing = f"waiting for the VNC server's {engine.message}"
        clock.deadline.check(doing)
        stream.settimeout(clock.deadline.remaining())
        count = stream.recv_into(engine.next_buffer())
        if not count:
            raise engine.receive_end()
        engine.received(count)
        clock.deadline.check(doing)
        stream.settimeout(clock.deadline.remaining())
        _answer(stream, engine)
    stream.settimeout(None)


def _answer(stream: Stream, engine: Engine) -> None:
    """Send what the handshake has to say; it may be a password, so that no variable keeps it."""
    out = engine.data_to_send()
    try:
        if out:
            stream.sendall(out)
    except VmconnectError as error:
        del out
        forget_frames(error)
        raise
