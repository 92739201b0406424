"""The console window: a machine's screen, keyboard and mouse, by pygame."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Literal, Protocol

from vmconnect.channel import StateChange
from vmconnect.closing import Closing
from vmconnect.errors import (
    ConnectionLostError,
    DisplayError,
    MissingDependencyError,
    VmconnectError,
)

# Before SDL starts: without a GPU, SDL's emulated window surface costs 20 to 150 times what its
# shared-memory one does. And pygame greets on standard output.
os.environ.setdefault("SDL_FRAMEBUFFER_ACCELERATION", "0")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
# A console is no game: the screen saver and the compositor are the user's.
os.environ.setdefault("SDL_VIDEO_ALLOW_SCREENSAVER", "1")
os.environ.setdefault("SDL_VIDEO_X11_NET_WM_BYPASS_COMPOSITOR", "0")
os.environ.setdefault("SDL_VIDEO_X11_WMCLASS", "vmconnect")

try:
    import pygame
except ImportError as _error:
    raise MissingDependencyError(
        "the console window needs pygame-ce", hint="pip install 'vmconnect[window]'"
    ) from _error

from vmconnect.ui.keyboard import key_of
from vmconnect.ui.news import News
from vmconnect.ui.notice import Notice, draw_notice, notice_of
from vmconnect.vnc import Console, Framebuffer
from vmconnect.vnc.console import Subscriber
from vmconnect.vnc.events import CursorShape, Event, NameChanged, Resized
from vmconnect.vnc.keys import Key

__all__ = ["Shown", "Window", "require_display"]

_WAKE = pygame.USEREVENT
# How long the loop sleeps when nothing happens, so that Ctrl-C is noticed (milliseconds).
_IDLE_MS = 200
_REPEAT_DELAY_MS, _REPEAT_INTERVAL_MS = 400, 35
# SDL's button numbers are RFB's (RFC 6143, section 7.5.5): left, middle, right.
_BUTTONS = {1, 2, 3}
# A window on a machine that was never seen is as large as a VGA text screen.
_FIRST_SIZE = (720, 400)


# pygame's names for words that have red, green and blue at these bits.
_ORDERS: dict[tuple[int, ...], Literal["BGRA", "RGBA"]] = {(16, 8, 0): "BGRA", (0, 8, 16): "RGBA"}


def require_display(instead: str = "use vmconnect screenshot") -> None:
    """Raise DisplayError where no window can be opened at all; ``instead`` is what else to do."""
    if not any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")):
        raise DisplayError(
            "there is no display to open a window on", hint=f"set DISPLAY, or {instead}"
        )


class Shown(Protocol):
    """What a window shows: a `Console`, or what tells as one does and takes no input."""

    machine: str

    @property
    def framebuffer(self) -> Framebuffer:
        """The pixels, live."""

    @property
    def size(self) -> tuple[int, int]:
        """The screen's width and height in pixels."""

    @property
    def alive(self) -> bool:
        """Whether there may be more to show."""

    @property
    def reason(self) -> VmconnectError | None:
        """Why there is not."""

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call ``subscriber`` with what happens, from any thread."""

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Call it no more."""

    def on_state(self, listener: Callable[[StateChange], None]) -> None:
        """Call ``listener`` when ``alive`` may have changed."""


class Window(Closing):
    """A window that shows one console, 1:1, and types into it.

    It stays while the console has no connection, and says why, also in its title. What is no
    console, a recording, is only looked at. It belongs to the thread that made it,
    which must be the process's main one (SDL's rule).
    """

    def __init__(self, console: Shown):
        """Open the window. Raises DisplayError."""
        self.console = console
        self._controlled = console if isinstance(console, Console) else None
        self._pressed: dict[int, Key] = {}
        self._news = News()
        self._notice: Notice | None = None
        self._desktop = ""
        try:
            pygame.display.init()
            pygame.display.set_icon(_icon())
            self._resize(*console.size)
        except pygame.error as error:
            pygame.display.quit()
            raise DisplayError(
                f"cannot open a window: {error}", machine=console.machine, hint="check DISPLAY"
            ) from error
        self._entitle()
        pygame.key.set_repeat(_REPEAT_DELAY_MS, _REPEAT_INTERVAL_MS)
        console.subscribe(self._on_event)
        console.on_state(self._on_state)

    def run(self, until: threading.Event | None = None) -> None:
        """Show the console until the window is closed, or ``until`` is set.

        Raises what ended the console, if that ends first.
        """
        while not (until is not None and until.is_set()):
            events = [pygame.event.wait(_IDLE_MS), *pygame.event.get()]
            if any(event.type == pygame.QUIT for event in events):
                return
            if not self.console.alive:
                if self.console.reason:
                    raise self.console.reason
                return
            for event in events:
                self._handle(event)
            self._show()

    def wake(self) -> None:
        """Make `run` look at ``until`` now; from any thread."""
        # The queue may be full, or SDL gone: then the loop is awake, or over.
        with contextlib.suppress(pygame.error):
            pygame.event.post(pygame.event.Event(_WAKE))

    def close(self) -> None:
        """Let go of the keys that are held and close the window."""
        self.console.unsubscribe(self._on_event)
        self._release_keys()
        pygame.display.quit()

    def _on_event(self, event: Event) -> None:
        """Note an event of the console; called in its reader's thread."""
        if self._news.add(event):
            self.wake()

    def _on_state(self, _change: StateChange) -> None:
        self.wake()

    def _show(self) -> None:
        """Bring the window up to date with what the console has told since the last time."""
        notice, events, damage = self._take_notice(), *self._news.take()
        for event in events:
            match event:
                case Resized(width, height) if (width, height) != self._surface.get_size():
                    self._resize(width, height)
                case CursorShape() if self._controlled:
                    _set_cursor(event)
                case NameChanged(name):
                    self._desktop = name
                    self._entitle()
                case _:
                    pass
        if notice != self._notice:
            self._notice = notice
            self._entitle()
            self._draw()
        elif damage and notice is None:
            areas = [pygame.Rect(area.x, area.y, area.width, area.height) for area in damage]
            for area in areas:
                self._screen.blit(self._surface, area, area)
            pygame.display.update(areas)

    def _take_notice(self) -> Notice | None:
        """Return what there is to say instead of showing the screen."""
        console = self._controlled
        if console is None:
            return None
        notice = notice_of(console)
        if notice is not None:
            self._pressed.clear()  # The connection has let go of them.
        elif not console.framebuffer.drawn:
            # It is back, and has sent nothing yet: the picture is still the old one.
            return self._notice
        return notice

    def _entitle(self) -> None:
        state = self._notice.state if self._notice else self._desktop
        words = filter(None, (self.console.machine, state, "vmconnect"))
        pygame.display.set_caption(" - ".join(words))

    def _resize(self, width: int, height: int) -> None:
        self._screen = pygame.display.set_mode((width, height) if width * height else _FIRST_SIZE)
        # The same memory that the decoders write: what is blitted is copied once.
        pixels = self.console.framebuffer.pixels
        if pixels.size:
            height, width = pixels.shape
            order = _ORDERS.get(self.console.framebuffer.pixel_format.shifts, "BGRA")
            self._surface = pygame.image.frombuffer(pixels.data.cast("B"), (width, height), order)
            self._surface.set_alpha(None)  # The fourth byte is no alpha.
        else:
            self._surface = pygame.Surface(_FIRST_SIZE)
        self._draw()

    def _draw(self) -> None:
        """Draw everything."""
        self._screen.blit(self._surface, (0, 0))
        if self._notice is not None:
            draw_notice(self._screen, self._notice)
        pygame.display.flip()

    def _handle(self, event: pygame.event.Event) -> None:
        """Send what a person does to the machine."""
        if event.type == pygame.WINDOWEXPOSED:
            self._draw()
        elif self._controlled is not None and self._notice is None:
            # What is pressed just when the connection goes is told by the notice.
            with contextlib.suppress(ConnectionLostError):
                self._send(event, self._controlled)

    def _send(self, event: pygame.event.Event, console: Console) -> None:
        mouse = console.mouse
        match event.type:
            case pygame.KEYDOWN:
                key = key_of(event.scancode, event.key, event.unicode)
                if key is not None:
                    self._pressed[event.scancode] = key
                    console.keyboard.down(key)
            case pygame.KEYUP:
                # The key as it went down: its keysym may have changed with a modifier since.
                key = self._pressed.pop(event.scancode, None)
                if key is not None:
                    console.keyboard.up(key)
            case pygame.MOUSEMOTION:
                mouse.move(*event.pos)
            case pygame.MOUSEBUTTONDOWN if event.button in _BUTTONS:
                mouse.down(event.button)
            case pygame.MOUSEBUTTONUP if event.button in _BUTTONS:
                mouse.up(event.button)
            case pygame.MOUSEWHEEL:
                mouse.scroll(event.x, event.y)
            case pygame.WINDOWFOCUSLOST:
                self._release_keys()
            case _:
                pass

    def _release_keys(self) -> None:
        pressed, self._pressed = self._pressed, {}
        if self._controlled is not None:
            # Whoever has ended the connection has let go of them.
            with contextlib.suppress(VmconnectError):
                for key in reversed(pressed.values()):
                    self._controlled.keyboard.up(key)


def _set_cursor(shape: CursorShape) -> None:
    """Give the pointer over the window the shape that the machine wants."""
    if not shape.width or not shape.height:
        pygame.mouse.set_visible(False)
        return
    size = (shape.width, shape.height)
    picture = pygame.image.frombytes(shape.rgba, size, "RGBA")
    hotspot = (min(shape.hotspot_x, shape.width - 1), min(shape.hotspot_y, shape.height - 1))
    pygame.mouse.set_cursor(pygame.cursors.Cursor(hotspot, picture))
    pygame.mouse.set_visible(True)


def _icon() -> pygame.Surface:
    """Draw the window's icon: a screen with a prompt on it."""
    icon = pygame.Surface((32, 32), pygame.SRCALPHA)
    frame, glass, prompt = (58, 65, 77), (13, 17, 23), (86, 211, 100)
    pygame.draw.rect(icon, frame, (1, 3, 30, 22), border_radius=3)
    pygame.draw.rect(icon, glass, (3, 5, 26, 18), border_radius=1)
    pygame.draw.rect(icon, frame, (10, 25, 12, 4), border_radius=1)
    pygame.draw.lines(icon, prompt, False, [(7, 9), (12, 13), (7, 17)], 2)
    pygame.draw.line(icon, prompt, (14, 19), (21, 19), 2)
    return icon
