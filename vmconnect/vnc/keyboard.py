"""A console's keyboard."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from vmconnect.errors import UnsupportedError
from vmconnect.vnc import messages
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.keys import SHIFT, Key, Stroke, key, stroke

__all__ = ["Keyboard"]

_INTERVAL = 0.02
"""Seconds between strokes: a PS/2 keyboard holds 16 bytes, and firmware polls it seldom."""


class Keyboard:
    """Presses keys on a machine; for any thread.

    Keys are a `Key`, a name such as "ctrl", "enter" or "f1", or a character, which stands for the
    key that bears it on a US keyboard. Where the server takes scancodes the guest's own layout
    gives them their meaning; elsewhere keysyms are sent.
    """

    def __init__(self, engine: Engine, send: Callable[[bytes], None]):
        self._engine = engine
        self._send = send
        self._lock = threading.RLock()
        # Whether it went down as a scancode: it must come up as what it went down.
        self._held: dict[Key, bool] = {}

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
        """Hold keys for the time of a ``with``; they are released in reverse order."""
        pressed = [key(name) for name in names]
        with contextlib.ExitStack() as stack:
            for each in pressed:
                self.down(each)
                stack.callback(self.up, each)
            yield

    def press(self, *names: str | Key) -> None:
        """Press keys together and let them go: ``press("ctrl", "alt", "delete")``."""
        with self._lock, self.hold(*names):
            pass

    def type(self, text: str, interval: float = _INTERVAL) -> None:
        r"""Type a text, with ``interval`` seconds from key to key; "\n" is Enter.

        Characters are found on a US keyboard. Raises UnsupportedError, before anything is typed,
        if a server that wants scancodes cannot be given one of them.
        """
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
            self._strike(each)

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
        self._send(event)
