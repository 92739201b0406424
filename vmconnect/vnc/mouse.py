"""A console's mouse."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from vmconnect.errors import TargetError
from vmconnect.vnc import messages
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.sender import Sender

__all__ = ["Button", "Mouse"]

Button = int | str
"""1 to 3 or "left", "middle", "right" (RFC 6143, section 7.5.5); 8, 9 or "back", "forward"."""

_BUTTONS = {"left": 1, "middle": 2, "right": 3, "back": 8, "forward": 9}
_PLAIN_BUTTONS = 0x7F
_WHEEL_UP, _WHEEL_DOWN, _WHEEL_LEFT, _WHEEL_RIGHT = 4, 5, 6, 7

# Relative motion is sent plus this (rfbproto, QEMU Pointer Motion Change).
_NO_MOTION = 0x7FFF
_LARGEST_MOTION = 0x7FFF


def _button(name: Button) -> int:
    number = _BUTTONS.get(name, 0) if isinstance(name, str) else name
    if number not in _BUTTONS.values():
        raise TargetError(f"no mouse button is called {name!r}", hint=", ".join(_BUTTONS))
    return number


def _names(mask: int) -> str:
    return " and ".join(name for name, number in _BUTTONS.items() if mask & 1 << (number - 1))


class Mouse:
    """Moves a machine's pointer and presses its buttons; for any thread.

    Positions are in pixels from the top left and are kept within the screen. A machine without
    a tablet wants motion, not positions (``engine.absolute`` is false): then `move` sends the
    way from the position before, and `move_by` is the honest call.
    """

    def __init__(self, engine: Engine, send: Sender):
        self._engine = engine
        self._send = send
        self._lock = threading.RLock()
        self._x = 0
        self._y = 0
        self._mask = 0

    @property
    def absolute(self) -> bool:
        """Whether the machine takes positions rather than motion."""
        return self._engine.absolute

    @property
    def position(self) -> tuple[int, int]:
        """Where the pointer was last sent."""
        return self._x, self._y

    def move(self, x: int, y: int) -> None:
        """Move the pointer to a position."""
        framebuffer = self._engine.framebuffer
        with self._lock:
            before = self.position
            self._x = max(0, min(x, framebuffer.width - 1))
            self._y = max(0, min(y, framebuffer.height - 1))
            if self._engine.absolute:
                self._event(0, 0)
            else:
                self._motion(self._x - before[0], self._y - before[1])

    def move_by(self, dx: int, dy: int) -> None:
        """Move the pointer by so many pixels to the right and down."""
        with self._lock:
            if self._engine.absolute:
                self.move(self._x + dx, self._y + dy)
            else:
                self._motion(dx, dy)

    def down(self, button: Button = "left") -> None:
        """Press a button and hold it."""
        bit = 1 << (_button(button) - 1)
        with self._lock:
            self._mask |= bit
            self._event(0, 0, f"{_names(bit)} button")

    def up(self, button: Button = "left") -> None:
        """Let go of a button."""
        bit = 1 << (_button(button) - 1)
        with self._lock:
            self._mask &= ~bit
            self._event(0, 0)

    def click(self, button: Button = "left", count: int = 1) -> None:
        """Press a button and let it go, ``count`` times."""
        with self._lock:
            for _ in range(count):
                self.down(button)
                self.up(button)

    def scroll(self, x: int = 0, y: int = 0) -> None:
        """Turn the wheel: ``y`` steps up, ``x`` steps to the right; negative the other way."""
        with self._lock:
            self._turn(_WHEEL_UP if y > 0 else _WHEEL_DOWN, abs(y))
            self._turn(_WHEEL_RIGHT if x > 0 else _WHEEL_LEFT, abs(x))

    def release(self) -> None:
        """Let go of all buttons."""
        with self._lock:
            if self._mask:
                self._mask = 0
                self._event(0, 0)

    def forget(self) -> tuple[str, ...]:
        """Take note that the connection is lost; return the names of the buttons it let go."""
        with self._lock:
            held, self._mask = self._mask, 0
        return (f"{_names(held)} button",) if held else ()

    @contextlib.contextmanager
    def moving(self, engine: Engine) -> Iterator[None]:
        """Speak to another engine after a ``with`` block, in which nothing is sent."""
        with self._lock:
            yield
            self._engine = engine

    def _turn(self, button: int, steps: int) -> None:
        bit = 1 << (button - 1)
        for _ in range(steps):
            self._mask |= bit
            self._event(0, 0, "wheel")
            self._mask &= ~bit
            self._event(0, 0)

    def _motion(self, dx: int, dy: int) -> None:
        """Send a motion, in as many pieces as its size needs."""
        while True:
            step_x = max(-_LARGEST_MOTION, min(dx, _LARGEST_MOTION))
            step_y = max(-_LARGEST_MOTION, min(dy, _LARGEST_MOTION))
            self._event(step_x, step_y)
            dx, dy = dx - step_x, dy - step_y
            if not dx and not dy:
                return

    def _event(self, dx: int, dy: int, what: str = "") -> None:
        place = (self._x, self._y) if self._engine.absolute else (_NO_MOTION + dx, _NO_MOTION + dy)
        # A server without the extension hears nothing of the buttons that it does not know.
        if self._mask > _PLAIN_BUTTONS and self._engine.extended_buttons:
            event = messages.extended_pointer_event(self._mask, *place)
        else:
            event = messages.pointer_event(self._mask & _PLAIN_BUTTONS, *place)
        self._send(event, what)
