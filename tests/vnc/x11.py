"""X11 clients by python-xlib, for what takes more than drawing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import Xlib.display
import Xlib.protocol.display
import Xlib.protocol.event

__all__ = ["x11_client"]


@contextlib.contextmanager
def x11_client(display: int) -> Iterator[Xlib.display.Display]:
    """Connect to an X server; one at a time.

    The library keeps the extensions' events of all servers in one table, and stumbles over a
    second server that numbers them in another way.
    """
    library = Xlib.protocol.display.Display
    others = library.event_classes
    library.event_classes = {**Xlib.protocol.event.event_class}
    try:
        client = Xlib.display.Display(f":{display}")
        try:
            yield client
        finally:
            client.close()
    finally:
        library.event_classes = others
