"""The console: a machine's screen, keyboard and mouse over RFB."""

from __future__ import annotations

import contextlib
import logging
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vmconnect.channel import Channel, ChannelState, Lost
from vmconnect.deadline import CancelScope, Deadline
from vmconnect.errors import (
    ConnectionLostError,
    DeadlineError,
    ResourceError,
    UnsupportedError,
    VmconnectError,
)
from vmconnect.retry import Retry
from vmconnect.vnc import messages
from vmconnect.vnc.clipboard import ConsoleClipboard
from vmconnect.vnc.connection import Connection
from vmconnect.vnc.connector import Connector, Opener, Tap
from vmconnect.vnc.credentials import Answer, concealed
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.events import (
    AudioOffered,
    CursorShape,
    Event,
    LedState,
    PointerMode,
    Resized,
    ResizeReason,
    ResizeStatus,
    Screen,
)
from vmconnect.vnc.extensions.audio import SampleFormat, audio_enable, audio_format
from vmconnect.vnc.extensions.xvp import PowerAction, xvp
from vmconnect.vnc.framebuffer import Framebuffer, Pixels, rgb
from vmconnect.vnc.keyboard import Keyboard
from vmconnect.vnc.link import Link
from vmconnect.vnc.mouse import Mouse
from vmconnect.vnc.png import encode_png
from vmconnect.vnc.policy import Policy
from vmconnect.vnc.preference import Preference
from vmconnect.vnc.screen_text import read_text

__all__ = ["Console", "Subscriber"]

Subscriber = Callable[[Event], None]

_LOG = logging.getLogger(__name__)

# How long close() waits for the last key releases to be taken (seconds).
_FAREWELL = 1.0

_LASTING = (CursorShape, PointerMode, LedState)

# How long open() waits for the first picture, and with it for all that the server tells of
# itself: whether it takes scancodes, say (seconds).
_SETTLING = 1.0

# How soon what a failed message has ended is known to all (seconds).
_NOTICING = 1.0

# How often `confirm` asks (seconds): an answer may not count.
_ASKING = 0.2

_REFUSALS = {
    ResizeStatus.PROHIBITED: "the server does not allow it",
    ResizeStatus.OUT_OF_RESOURCES: "the server is out of resources",
    ResizeStatus.INVALID_LAYOUT: "the server takes no such size",
    ResizeStatus.UNKNOWN: "the server gives an unknown reason",
}


class Console(Channel):
    """A machine's screen, keyboard and mouse; made by `open`, safe to use from any thread.

    A thread reads and decodes, so ``framebuffer`` is always as the server last told. ``keyboard``,
    ``mouse`` and ``clipboard`` never wait for the network, and raise ConnectionLostError while
    there is no connection.

    With a `Retry` the console outlives its connection: all these objects, and who subscribes,
    stay, and `wait_for` and its like wait on. Without, what ends the connection ends it.
    """

    kind = "console"

    def __init__(
        self,
        machine: str,
        connector: Connector,
        framebuffer: Framebuffer | None = None,
        *,
        retry: Retry | None = None,
        scope: CancelScope | None = None,
    ):
        """Prepare a console; `open` makes one that is connected, and says what is what."""
        super().__init__(machine, retry, scope)
        self._connector = connector
        self._connection: Connection | None = None
        # Stands in until there is a connection.
        self._engine = Engine(framebuffer=framebuffer)
        self.keyboard = Keyboard(self._engine, self._send)
        self.mouse = Mouse(self._engine, self._send)
        self.clipboard = ConsoleClipboard(machine, self._engine, self._send)
        self._subscribers: list[Subscriber] = []
        # What a later subscriber has to know, by kind.
        self._present: dict[type[Event], Event] = {}
        self._telling = threading.RLock()
        # What sound is to be asked for, of each server anew.
        self._sound = b""
        self._pulse = threading.Condition()
        self._pulses = 0
        self.on_state(lambda _change: self._wake())

    @classmethod
    def open(
        cls,
        opener: Opener,
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
        tap: Tap | None = None,
        retry: Retry | None = None,
        wait: bool = False,
        at_once: bool = False,
        scope: CancelScope | None = None,
    ) -> Self:
        """Connect by ``opener``, log in, and return the console when the server has let us in.

        A callable ``password`` or ``user`` is called, in this thread, only if the server wants
        one; the time that it takes, or that the policy's ``check_key`` takes, does not count.
        ``policy`` says what the server must prove (see `vmconnect.vnc.policy.Policy`); a `Route`
        that ``opener`` returns brings its own. What encodings are asked for follows from
        ``preference`` and from how fast the link turns out to be (``console.link``), or is if it
        is ``local``. ``shared`` leaves other clients connected. ``tap`` is the engine's:
        `Recorder.write`, say, which records the session; it hears the first connection alone.

        With ``retry`` the console comes back by itself: ``opener`` is asked again, and what a
        person has answered before is used again. ``wait`` tries until the time is over;
        ``at_once`` does not wait at all: the console connects when it can, in its own thread,
        where a person may then be asked too. ``scope`` ends the opening when it is cancelled.

        Raises what ``opener`` does; DeadlineError if the server does not answer in time,
        RfbError if it is no VNC server or a broken one, AuthenticationError if it refuses the
        login, TrustError if the policy does, ConnectError if it refuses us, ConnectionLostError
        if it hangs up.
        """
        password, user = concealed(password), concealed(user)
        connector = Connector(
            opener,
            f"vmconnect {cls.kind} {machine}",
            password=password,
            user=user,
            policy=policy,
            preference=preference,
            local=local,
            shared=shared,
            tap=tap,
        )
        console = cls(machine, connector, framebuffer, retry=retry, scope=scope)
        if at_once:
            console._thread.start()
            return console
        deadline = console._scope.deadline(timeout)
        console._open(deadline, wait=wait)
        try:
            # The first picture, if it comes soon.
            with contextlib.suppress(DeadlineError):
                console.wait_for(
                    lambda each: each.framebuffer.drawn, connector.clock.deadline.sooner(_SETTLING)
                )
        except BaseException:
            console.close()
            raise
        return console

    # The screen.

    @property
    def link(self) -> Link:
        """How fast the way to the server is, and what is asked for over it."""
        return self._connector.link

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

        Waits for the first update of the screen if it has not come yet, and for a connection if
        there is none. Raises DeadlineError, or what ended the console.
        """
        deadline = Deadline.of(timeout)
        while True:
            self.wait_ready(deadline)
            connection = self._connection
            try:
                picture = self.framebuffer.snapshot(deadline)
            except DeadlineError as error:
                raise error.with_machine(self.machine) from error.__cause__
            self._check_open()
            # What a lost connection leaves is not the screen.
            if connection is not None and connection.ended is None:
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
        if not incremental:
            self._connected().request_whole()
        else:
            self._send(messages.framebuffer_update_request(True, 0, 0, *self.size))

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

        It is asked for again when the connection was lost. Raises UnsupportedError if the server
        has not said that it can send it.
        """
        if not self._engine.audible:
            raise UnsupportedError("its VNC server sends no sound", machine=self.machine)
        request = audio_format(form, channels, frequency) if enable else b""
        self._send(request + audio_enable(enable))
        self._sound = request + audio_enable(True) if enable else b""

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

        A connection that is lost meanwhile is waited for too. Raises DeadlineError, or what ended
        the console (ClosedError after a plain close).
        """
        deadline = Deadline.of(timeout)
        with deadline.waking(self._wake):
            while True:
                pulses, alive = self._pulses, self.alive
                if predicate(self):
                    return
                if not alive:
                    self._check_open()
                if not self._wait_pulse(pulses, deadline) and deadline.passed:
                    reason = self.reason
                    raise DeadlineError(
                        "what was waited for did not come in time",
                        machine=self.machine,
                        hint=f"the console is {self.state.value}: {reason.message}"
                        if reason
                        else None,
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

    def confirm(self, timeout: Deadline | float | None = 10.0) -> None:
        """Wait until the server has read all keys, clicks and texts that were sent to it.

        Raises ConnectionLostError if that is not known when the connection is lost,
        UnsupportedError if the server cannot be asked, DeadlineError.
        """
        deadline = Deadline.of(timeout)
        connection = self._connected()
        wanted = connection.sent
        while not connection.wait_confirmed(wanted, deadline.sooner(_ASKING)):
            if connection.ended is not None:
                self._await_loss(connection)
                raise self._not_connected("the connection was lost before all had been read")
            # What a server can be asked it tells before its first picture.
            if not connection.ask() and self.framebuffer.drawn:
                raise UnsupportedError(
                    "its VNC server cannot be asked what it has read", machine=self.machine
                )
            deadline.check("waiting for the VNC server to read what it was sent")

    # The connection's life.

    def _is_asking(self) -> bool:
        return self._connector.clock.asking

    def _connect(self, deadline: Deadline) -> None:
        framebuffer = self.framebuffer
        before, first = framebuffer.pixels.shape, self._connection is None
        framebuffer.begin_anew()
        connection, events = self._connector.connect(framebuffer, deadline)
        engine = connection.engine
        with self.keyboard.moving(engine), self.mouse.moving(engine):
            self.clipboard.move(engine)
            self._engine, self._connection = engine, connection
        self._present.clear()
        changed = framebuffer.pixels.shape != before
        if self._subscribers or not first:
            self._tell([*events, Resized(framebuffer.width, framebuffer.height, changed)])

    def _serve(self) -> VmconnectError:
        return self._connected().serve(self._tell)

    def _drop(self) -> Lost:
        connection = self._connection
        if connection is None:
            return Lost()
        connection.close()
        released = (*self.keyboard.forget(), *self.mouse.forget())
        unsent, uncertain = connection.lost()
        return Lost(unsent, uncertain, released)

    def take_leave(self) -> None:
        """Release what is held down; `close` does so first."""
        with contextlib.suppress(VmconnectError):
            self.keyboard.release()
            self.mouse.release()

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close(_FAREWELL)
        self.framebuffer.abandon()
        self._wake()

    def _connected(self) -> Connection:
        """Return the connection; raises if there is none."""
        connection = self._connection
        if connection is not None and connection.ended is not None:
            self._await_loss(connection)
        self._check_open()
        if connection is None or connection.ended is not None:
            raise self._not_connected("the console is not connected")
        return connection

    def _await_loss(self, connection: Connection) -> None:
        """Wait until it is known to all that the connection has ended.

        Whoever hears of it looks at the state next, or waits for it to be READY again.
        """
        if threading.current_thread() is not self._thread:
            self._states.wait_for(
                lambda state: state is not ChannelState.READY or self._connection is not connection,
                Deadline(_NOTICING),
            )

    def _not_connected(self, what: str) -> VmconnectError:
        reason = self.reason
        return ConnectionLostError(
            what, machine=self.machine, hint=reason.message if reason else None
        )

    def _send(self, data: bytes, what: str = "") -> None:
        connection = self._connected()
        try:
            connection.send(data, what)
        except VmconnectError as error:
            self._await_loss(connection)
            raise error.with_machine(self.machine) from error.__cause__

    def _tell(self, events: list[Event]) -> None:
        with self._telling:
            for event in events:
                self.clipboard.take(event)
                if isinstance(event, _LASTING):
                    self._present[type(event)] = event
                if isinstance(event, AudioOffered) and self._sound:
                    with contextlib.suppress(VmconnectError):
                        self._send(self._sound)
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

    def _wait_pulse(self, before: int, deadline: Deadline) -> bool:
        """Wait until something has happened since there were ``before`` pulses; return whether."""
        with self._pulse:
            return self._pulse.wait_for(lambda: self._pulses != before, deadline.remaining())
