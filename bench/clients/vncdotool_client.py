"""vncdotool (PyPI) on twisted: Raw, RRE, Hextile, ZRLE; CopyRect it takes and does not draw."""

from __future__ import annotations

import socket
import sys
from typing import Any

from twisted.internet import reactor as twisted_reactor
from vncdotool.client import VNCDoToolClient, VNCDoToolFactory, factory_connect

from bench.clients.meter import Meter

# A module as types see it, an object in truth.
reactor: Any = twisted_reactor


class Client(VNCDoToolClient):  # type: ignore[misc]
    """Its client, asking for changes all the time."""

    meter: Meter

    def commitUpdate(self, rectangles: object = None) -> None:  # noqa: N802 (its name)
        """Note the update and ask for the next."""
        self.meter.update()
        super().commitUpdate(rectangles)
        self.framebufferUpdateRequest(incremental=True)

    def vncConnectionMade(self) -> None:  # noqa: N802 (its name)
        """Ask for the first."""
        super().vncConnectionMade()
        self.framebufferUpdateRequest()

    def connectionLost(self, reason: object) -> None:  # noqa: N802 (its name)
        """Show what it has."""
        self.meter.stop()
        super().connectionLost(reason)
        reactor.stop()


class Factory(VNCDoToolFactory):  # type: ignore[misc]
    """Its factory, of our client."""

    protocol = Client


def main() -> None:
    """Run."""
    address, _, picture = sys.argv[1:]
    clients: list[Client] = []
    factory = Factory()
    factory.deferred.addCallback(clients.append)
    Client.meter = Meter()
    factory_connect(factory, address, 0, socket.AF_UNIX)
    reactor.run()
    screen = clients[0].screen
    Client.meter.report(picture, screen.tobytes() if screen else b"")


if __name__ == "__main__":
    main()
