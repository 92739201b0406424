"""What a console has told and a window has not yet shown: never more than one of each kind."""

from __future__ import annotations

import threading

from vmconnect.vnc.damage import DamageList
from vmconnect.vnc.events import CursorShape, Damage, Event, NameChanged, Resized, UpdateDone

__all__ = ["News"]

_Latest = Resized | CursorShape | NameChanged


class News:
    """Filled by the console's reading thread, emptied by the window's, however seldom.

    Of what replaces the one before, the last is kept; damage is joined in a bounded number of
    areas. So a window that is dragged, or hidden for hours, costs no memory.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[type, _Latest] = {}
        self._damage = DamageList()

    def add(self, event: Event) -> bool:
        """Take an event; return whether there was no news before."""
        with self._lock:
            first = not self._latest and not self._damage.used
            match event:
                case UpdateDone(damage):
                    for area in damage:
                        self._damage.add(area.x, area.y, area.width, area.height)
                case Resized():
                    self._latest[Resized] = event
                    if event.changed:
                        # It lies in a screen that is no more.
                        self._damage.take()
                case CursorShape() | NameChanged():
                    self._latest[type(event)] = event
                case _:
                    return False
            return first

    def take(self) -> tuple[list[_Latest], tuple[Damage, ...]]:
        """Return what is new, a new size first, and the areas that were drawn since."""
        with self._lock:
            latest, self._latest = self._latest, {}
            ordered = sorted(latest.values(), key=lambda event: not isinstance(event, Resized))
            return ordered, self._damage.take()
