"""Events of a libvirt daemon's domains.

libvirt delivers events from an event loop of the process. Its own default one runs in one daemon
thread of ours, which starts with the first watch and serves all of them.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
from typing import Any

from vmconnect.deadline import Deadline
from vmconnect.errors import ClosedError, ConnectionLostError, DeadlineError, VmconnectError
from vmconnect.hypervisor.libvirt.address import LibvirtAddress
from vmconnect.hypervisor.libvirt.connection import Connection, load
from vmconnect.hypervisor.watch import EventKind, MachineEvent, Watch

__all__ = ["LibvirtWatch"]

_CLOSE_SECONDS = 5.0
# A daemon on a host that is gone is noticed after this many seconds times this many questions.
_KEEPALIVE = (5, 3)


@functools.cache
def _run_events() -> None:
    """Start the event loop. It must be there before the connections that are to have events."""
    library = load()
    library.virEventRegisterDefaultImpl()

    def run() -> None:
        while True:
            with contextlib.suppress(library.libvirtError):
                library.virEventRunDefaultImpl()

    threading.Thread(target=run, name="vmconnect libvirt events", daemon=True).start()


@functools.cache
def _kinds() -> dict[int, EventKind]:
    library = load()
    return {
        library.VIR_DOMAIN_EVENT_UNDEFINED: EventKind.GONE,
        library.VIR_DOMAIN_EVENT_STARTED: EventKind.STARTED,
        library.VIR_DOMAIN_EVENT_SUSPENDED: EventKind.PAUSED,
        library.VIR_DOMAIN_EVENT_PMSUSPENDED: EventKind.PAUSED,
        library.VIR_DOMAIN_EVENT_RESUMED: EventKind.RESUMED,
        library.VIR_DOMAIN_EVENT_STOPPED: EventKind.STOPPED,
        library.VIR_DOMAIN_EVENT_CRASHED: EventKind.CRASHED,
    }


class LibvirtWatch(Watch):
    """Lifecycle and reboot events of all domains."""

    def __init__(self, address: LibvirtAddress, deadline: Deadline):
        _run_events()
        self._events: queue.SimpleQueue[MachineEvent | None] = queue.SimpleQueue()
        self._lost = False
        self._closed = False
        self._callbacks: list[int] = []
        self._address = address
        self._connection = Connection(address)
        try:
            self._connection.call(self._register, deadline)
        except BaseException:
            self._connection.close()
            raise

    def next(self, timeout: Deadline | float | None = None) -> MachineEvent:
        """Return the next event.

        Raises DeadlineError, ClosedError once it is closed, and ConnectionLostError when the
        daemon has gone.
        """
        deadline = Deadline.of(timeout)
        event = None
        if not self._closed:
            try:
                event = self._events.get(timeout=deadline.remaining())
            except queue.Empty:
                raise DeadlineError("nothing happened in time") from None
        if event is not None:
            return event
        self._events.put(None)  # For whoever else waits.
        if self._lost and not self._closed:
            raise ConnectionLostError(f"{self._address.uri} has closed the connection")
        raise ClosedError("the watch is closed")

    def close(self) -> None:
        """End the watch, and wake whoever waits."""
        if self._closed:
            return
        self._closed = True
        self._events.put(None)
        with contextlib.suppress(VmconnectError):
            self._connection.call(self._deregister, Deadline(_CLOSE_SECONDS))
        self._connection.close()

    def _register(self, connection: Any) -> None:
        library = load()
        with contextlib.suppress(library.libvirtError):  # a local daemon's may lack it
            connection.setKeepAlive(*_KEEPALIVE)
        connection.registerCloseCallback(self._on_close, None)
        for kind, callback in (
            (library.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle),
            (library.VIR_DOMAIN_EVENT_ID_REBOOT, self._on_reboot),
        ):
            self._callbacks.append(connection.domainEventRegisterAny(None, kind, callback, None))

    def _deregister(self, connection: Any) -> None:
        for number in self._callbacks:
            connection.domainEventDeregisterAny(number)
        connection.unregisterCloseCallback()

    def _on_lifecycle(
        self, _connection: Any, domain: Any, event: int, detail: int, _opaque: object
    ) -> None:
        library = load()
        kind = _kinds().get(event)
        if event == library.VIR_DOMAIN_EVENT_DEFINED:
            if detail != library.VIR_DOMAIN_EVENT_DEFINED_ADDED:
                return
            kind = EventKind.APPEARED
        elif (event, detail) == (
            library.VIR_DOMAIN_EVENT_STOPPED,
            library.VIR_DOMAIN_EVENT_STOPPED_CRASHED,
        ):
            kind = EventKind.CRASHED
        if kind is not None:
            self._events.put(MachineEvent(kind, domain.name(), domain.UUIDString()))

    def _on_reboot(self, _connection: Any, domain: Any, _opaque: object) -> None:
        self._events.put(MachineEvent(EventKind.RESET, domain.name(), domain.UUIDString()))

    def _on_close(self, _connection: Any, _reason: int, _opaque: object) -> None:
        self._lost = True
        self._events.put(None)
