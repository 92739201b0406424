"""A recording that is shown at its own pace, as a window shows a console."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from vmconnect.channel import Channel, ChannelState
from vmconnect.errors import VmconnectError
from vmconnect.replay.replay import Replay
from vmconnect.vnc.events import Connected, Event, NameChanged
from vmconnect.vnc.framebuffer import Framebuffer

__all__ = ["Screening"]

# How long is waited at most at once (seconds): a pause may be a year.
_PATIENCE = 60.0


class Screening(Channel):
    """A replay in a thread of its own, from `start` to `close`.

    It is ``speed`` times as fast as it was, or as fast as can be if that is None, and begins
    where the replay stands. At the end the last picture stays; the desktop's name says that it is
    the end, and why, and ``trouble`` is the replay's.

    Raises `Replay.nothing` for a recording that ends before there is a screen.
    """

    def __init__(self, replay: Replay, speed: float | None = 1.0, at: float = 0.0):
        super().__init__(replay.player.path.name)
        self._replay = replay
        self._speed = speed
        self._at = at
        self._closing = threading.Event()
        self._subscribers: list[Callable[[Event], None]] = []
        self._thread = threading.Thread(target=self._play, name="vmconnect replay", daemon=True)
        seen = replay.read(at)
        while not replay.ended and not any(isinstance(each, Connected) for each in seen):
            seen += replay.read(replay.next_at)
        if not replay.engine.framebuffer.pixels.size:
            raise replay.nothing()

    @property
    def framebuffer(self) -> Framebuffer:
        """The screen's pixels, live."""
        return self._replay.engine.framebuffer

    @property
    def size(self) -> tuple[int, int]:
        """The screen's width and height in pixels."""
        height, width = self.framebuffer.pixels.shape
        return width, height

    @property
    def desktop_name(self) -> str:
        """What the server called the desktop."""
        return self._replay.engine.name

    @property
    def trouble(self) -> VmconnectError | None:
        """Why the recording ended where it did, if it is not whole."""
        return self._replay.trouble

    def subscribe(self, subscriber: Callable[[Event], None]) -> None:
        """Call ``subscriber`` with every later event, in the replay's thread."""
        self._subscribers.append(subscriber)

    def unsubscribe(self, subscriber: Callable[[Event], None]) -> None:
        """Call ``subscriber`` no more."""
        self._subscribers.remove(subscriber)

    def start(self) -> None:
        """Begin to play."""
        self._enter(ChannelState.READY)
        self._thread.start()

    def close(self) -> None:
        """End it, and its thread."""
        self._closing.set()
        self._end()
        if self._thread.is_alive():
            self._thread.join()

    def _play(self) -> None:
        replay, begun = self._replay, time.monotonic()
        while not replay.ended:
            if self._speed is not None:
                self._wait_until(begun + (replay.next_at - self._at) / self._speed)
            if self._closing.is_set():
                return
            self._tell(replay.read(replay.next_at))
        how = "damaged here" if replay.trouble else "the end"
        self._tell([NameChanged(f"{self.desktop_name} ({how})")])

    def _wait_until(self, moment: float) -> None:
        while (left := moment - time.monotonic()) > 0:
            if self._closing.wait(min(left, _PATIENCE)):
                return

    def _tell(self, events: list[Event]) -> None:
        for event in events:
            for subscriber in tuple(self._subscribers):
                subscriber(event)
