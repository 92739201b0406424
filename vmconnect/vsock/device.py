"""The device as its users see it: made, started, stopped."""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import Final, Self

from vmconnect.errors import ResourceError, StateError
from vmconnect.vsock.poller import READABLE
from vmconnect.vsock.service import Service

__all__ = ["VsockDevice"]

# The CIDs that a guest can have (vsock(7)): 0 to 2 are reserved, the last is VMADDR_CID_ANY.
_CIDS: Final = range(3, 0xFFFF_FFFF)


class VsockDevice:
    """A vsock device for one QEMU, in user space.

    QEMU connects to ``socket`` (``-chardev socket,id=vs,path=SOCKET -device
    vhost-user-vsock-pci,chardev=vs``, with ``memory-backend-memfd,share=on``) and gives its guest
    the ``cid``. Programs connect to ``uds`` and say ``CONNECT <port>``; what the guest connects to
    on the host's port P is the UNIX socket ``<uds>_P``. Only this user can use either.

    Front ends come and go, one served at a time; the device stays until `stop`, and is not
    started again. As a context manager it serves in a thread.
    """

    def __init__(self, socket: str, uds: str, cid: int):
        """Prepare a device; nothing is open until `listen`, `start` or `serve_forever`.

        Raises ResourceError for a CID that no guest can have.
        """
        if cid not in _CIDS:
            raise ResourceError(
                f"a guest cannot have the CID {cid}", hint=f"use one from {_CIDS[0]} on"
            )
        self.socket = socket
        self.uds = uds
        self.cid = cid
        # Re-entrant: a signal handler may call stop() in the midst of another call.
        self._lock = threading.RLock()
        self._service: Service | None = None
        self._thread: threading.Thread | None = None
        self._wake = -1
        self._serving = False
        self._stopped = False

    def listen(self) -> None:
        """Create both sockets: from now on QEMU can be started. Once is enough.

        Raises ResourceError if a socket cannot be created or a live process serves it, StateError
        after `stop`.
        """
        with self._lock:
            if self._stopped:
                raise StateError("the vsock device was stopped", hint="make a new one")
            if self._service is None:
                self._service = Service(self.socket, self.uds, self.cid)
                self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
                self._service.poller.add(self._wake, READABLE, _woken)

    def serve_forever(self) -> None:
        """Serve until `stop`, in this thread; the sockets are gone when this returns.

        Returns at once if it was stopped already, by a signal say. Raises ResourceError as
        `listen` does.
        """
        try:
            self.listen()
        except StateError:
            return
        self._serve()

    def start(self) -> None:
        """Serve in a thread; the sockets are there when this returns.

        Raises what `listen` raises.
        """
        self.listen()
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="vsock", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """End serving; safe from a signal handler and from any thread, and more than once.

        Waits for the thread that `start` made, unless this is it.
        """
        with self._lock:
            self._stopped = True
            if self._serving:
                os.eventfd_write(self._wake, 1)
            else:
                self._close()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _serve(self) -> None:
        with self._lock:
            service = self._service
            if service is None or self._stopped:
                return
            self._serving = True
        try:
            service.prepare()
            while not self._stopped:
                service.round()
        finally:
            with self._lock:
                self._serving = False
                self._close()

    def _close(self) -> None:
        """Close what is open; with the lock, and only while nobody serves."""
        if self._service is not None:
            self._service.close()
            self._service = None
            os.close(self._wake)
            self._wake = -1

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _woken(events: int) -> None:
    """Do nothing: the loop looks after every round whether it has to end."""
