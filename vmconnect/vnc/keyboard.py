"""A console's keyboard."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from vmconnect.errors import ConnectionLostError, UnsupportedError
from vmconnect.vnc import messages
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.keys import SHIFT, Key, Stroke, key, name_of, stroke
from vmconnect.vnc.sender import Sender

__all__ = ["Keyboard"]

_INTERVAL = 0.02
"""Seconds between strokes: a PS/2 keyboard holds 16 bytes, and firmware polls it seldom."""


class Keyboard:
    """Presses keys on a machine; for any thread.

    Keys are a `Key`, a name such as "ctrl", "enter" or "f1", or a character, which stands for the
    key that bears it on a US keyboard. Where the server takes scancodes the guest's own layout
    gives them their meaning; elsewhere keysyms are sent.

    When the connection is lost, keys that are held are let go, and stay so when it is back: then
    `hold` and `type` raise ConnectionLostError, of which the connection's end is a part.
    """

    def __init__(self, engine: Engine, send: Sender):
        self._engine = engine
        self._send = send
        self._lock = threading.RLock()
        # Whether it went down as a scancode: it must come up as what it went down.
        self._held: dict[Key, bool] = {}
        # How many connections were lost.
        self._losses = 0

    @property
    def held(self) -> tuple[Key, ...]:
        """The keys that are down, in the order in which they went down."""
        return tuple(self._held)

    def down(self, name: str | Key) -> None:
        """Press a key and hold it; again is its repetition."""
        pressed = key(name)
        with self._lock:
            by_scancode = self._held.get(pressed, self._engine.scancodes and pressed.scancode != 0)
            self._event(True, pressed, by_scancode)
            self._held[pressed] = by_scancode

    def up(self, name: str | Key) -> None:
        """Let go of a key."""
        released = key(name)
        with self._lock:
            by_scancode = self._engine.scancodes and released.scancode != 0
            self._event(False, released, self._held.pop(released, by_scancode))

    def release(self) -> None:
        """Let go of all that is held, the last pressed first."""
        with self._lock:
            for pressed in reversed(self.held):
                self.up(pressed)

    @contextlib.contextmanager
    def hold(self, *names: str | Key) -> Iterator[None]:
        """Hold keys for the time of a ``with``; they are released in reverse order.

        Raises ConnectionLostError at its end if they were let go before, with the connection.
        """
        pressed = [key(name) for name in names]
        losses = self._losses
        with contextlib.ExitStack() as stack:
            for each in pressed:
                self.down(each)
                stack.callback(self._up_again, each, losses)
            yield

    def press(self, *names: str | Key) -> None:
        """Press keys together and let them go: ``press("ctrl", "alt", "delete")``."""
        with self._lock, self.hold(*names):
            pass

    def type(self, text: str, interval: float = _INTERVAL) -> None:
        r"""Type a text, with ``interval`` seconds from key to key; "\n" is Enter.

        Characters are found on a US keyboard. Raises UnsupportedError, before anything is typed,
        if a server that wants scancodes cannot be given one of them; ConnectionLostError if the
        connection is lost before the last one is sent, though it be back since.
        """
        losses = self._losses
        strokes = [stroke(character) for character in text.replace("\r\n", "\n")]
        for character, each in zip(text.replace("\r\n", "\n"), strokes, strict=True):
            if each.key == Key() or (self._engine.scancodes and not each.key.scancode):
                raise UnsupportedError(
                    f"the character {character!r} is on no key of a US keyboard",
                    hint="give the guest the text in another way",
                )
        for place, each in enumerate(strokes):
            if place and interval:
                time.sleep(interval)
            with self._lock:
                self._check(losses, f"{place} of {len(strokes)} characters were typed")
                self._strike(each)

    def forget(self) -> tuple[str, ...]:
        """Take note that the connection is lost; return the names of the keys that it let go."""
        with self._lock:
            held = tuple(name_of(each) for each in self._held)
            self._held.clear()
            self._losses += 1
        return held

    @contextlib.contextmanager
    def moving(self, engine: Engine) -> Iterator[None]:
        """Speak to another engine after a ``with`` block, in which nothing is sent."""
        with self._lock:
            yield
            self._engine = engine

    def _up_again(self, held: Key, losses: int) -> None:
        with self._lock:
            self._check(losses, f"{name_of(held)} was let go")
            self.up(held)

    def _check(self, losses: int, account: str) -> None:
        if losses != self._losses:
            raise ConnectionLostError(
                f"the connection was lost meanwhile: {account}",
                hint="look at the screen, and type the rest again",
            )

    def _strike(self, each: Stroke) -> None:
        shift = each.shift
        leds = self._engine.leds
        if leds is not None and leds.caps_lock and chr(each.key.keysym).isalpha():
            shift = not shift
        with self._lock, self.hold(*([SHIFT] if shift else []), each.key):
            pass

    def _event(self, down: bool, key_: Key, by_scancode: bool) -> None:
        if by_scancode:
            event = messages.extended_key_event(down, key_.keysym, key_.scancode)
        elif key_.keysym:
            event = messages.key_event(down, key_.keysym)
        else:
            raise UnsupportedError(
                f"the key with scancode {key_.scancode:#x} has no keysym",
                hint="this VNC server takes no scancodes",
            )
        self._send(event, name_of(key_) if down else "")
