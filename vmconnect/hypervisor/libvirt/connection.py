"""Calls to libvirt that end: within a deadline, and with an error of our tree.

libvirt's calls wait for as long as its daemon pleases. So each connection has a thread that makes
them; when one does not come back in time, its caller leaves, and the thread closes the connection
whenever it can.
"""

from __future__ import annotations

import contextlib
import importlib
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from vmconnect.deadline import Deadline
from vmconnect.errors import (
    AuthenticationError,
    ClosedError,
    ConnectError,
    ConnectionLostError,
    DeadlineError,
    GuestError,
    HypervisorError,
    MachineNotFoundError,
    MissingDependencyError,
    TargetError,
    UnsupportedError,
    VmconnectError,
)
from vmconnect.hypervisor.libvirt.address import LibvirtAddress
from vmconnect.streams.permission import permission_hint

__all__ = ["Connection", "load", "load_qemu", "translated"]

T = TypeVar("T")

_AGENT_REFUSED = "unable to execute QEMU agent command"
# How libvirt says that its daemon is gone.
_LOST = ("client socket is closed", "Cannot recv data", "Cannot write data", "End of file while")


def load() -> Any:
    """Import libvirt-python and return it; MissingDependencyError where there is none.

    The library would write every error on standard error too. That is turned off, unless the
    process has imported it before us: then what it writes is somebody else's choice.
    """
    ours = "libvirt" not in sys.modules
    try:
        library = importlib.import_module("libvirt")
    except ImportError as error:
        raise MissingDependencyError(
            "libvirt-python is not installed",
            hint="pip install 'vmconnect[libvirt]', which needs libvirt-dev and pkg-config",
        ) from error
    if ours:
        library.registerErrorHandler(lambda _context, _error: None, None)
    return library


def load_qemu() -> Any:
    """Import what libvirt has for QEMU alone; raises as `load` does."""
    load()
    return importlib.import_module("libvirt_qemu")


class _Call:
    """A call on its way: its result or error, once ``done`` is set."""

    __slots__ = ("done", "error", "function", "result")

    def __init__(self, function: Callable[[Any], Any]):
        self.function = function
        self.done = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None


class Connection:
    """A connection to the daemon at ``address``, opened at the first call."""

    def __init__(self, address: LibvirtAddress):
        self.address = address
        self.library = load()
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(
            target=self._serve, name=f"vmconnect {address.uri}", daemon=True
        )
        self._thread.start()

    @property
    def usable(self) -> bool:
        """Whether calls still have a chance: it is neither closed, nor stuck, nor lost."""
        return not self._closed

    def call(
        self, function: Callable[[Any], T], deadline: Deadline, *, machine: str | None = None
    ) -> T:
        """Return ``function(the virConnect)``.

        Raises DeadlineError, after which the connection is not usable, and what `translated`
        makes of libvirt's error.
        """
        if self._closed:
            raise ClosedError(f"the connection to {self.address.uri} is closed")
        call = _Call(function)
        self._calls.put(call)
        with deadline.waking(call.done.set):
            done = call.done.wait(deadline.remaining())
        if deadline.cancelled:
            self.close()  # It may be stuck; it closes when it can.
            raise ClosedError(f"closed while {self.address.uri} was asked", machine=machine)
        if not done:
            self.close()
            hint = "is it stuck? systemctl restart libvirtd (or virtqemud); its machines run on"
            if self.address.remote:
                hint = f"try it by hand: virsh -c {self.address.uri} list"
            raise DeadlineError(
                f"no answer from {self.address.uri} in time", machine=machine, hint=hint
            )
        if call.error is None:
            return call.result  # type: ignore[no-any-return]
        if isinstance(call.error, self.library.libvirtError):
            error = translated(call.error, self.address)
            raise error.with_machine(machine) if machine else error from call.error
        raise call.error

    def close(self) -> None:
        """Close the connection once what is under way has ended; does not wait for it."""
        if not self._closed:
            self._closed = True
            self._calls.put(None)

    def _serve(self) -> None:
        connection: Any = None
        while (call := self._calls.get()) is not None:
            try:
                if connection is None:
                    connection = self._open()
                call.result = call.function(connection)
            except BaseException as error:  # noqa: BLE001 (the caller's to raise)
                call.error = error
                if connection is not None and self._lost(connection):
                    self._closed = True
            call.done.set()
            if self._closed:
                break
        if connection is not None:
            with contextlib.suppress(self.library.libvirtError):
                connection.close()

    def _open(self) -> Any:
        try:
            return self.library.open(self.address.uri)
        except self.library.libvirtError as error:
            raise _not_opened(error, self.address, self.library) from error

    def _lost(self, connection: Any) -> bool:
        try:
            return not connection.isAlive()
        except self.library.libvirtError:
            return True


def _not_opened(error: Any, address: LibvirtAddress, library: Any) -> VmconnectError:
    """Say why there is no connection, and what would give one."""
    reason = str(error)
    code = error.get_error_code()
    if code in {
        library.VIR_ERR_AUTH_FAILED,
        library.VIR_ERR_AUTH_CANCELLED,
        library.VIR_ERR_AUTH_UNAVAILABLE,
    }:
        return AuthenticationError(
            f"{address.uri} refuses us: {reason}",
            hint="join the group libvirt, or let polkit permit org.libvirt.unix.manage",
        )
    hint = "is libvirtd or virtqemud running?"
    if "Permission denied" in reason and address.sockets:
        socket = next((each for each in address.sockets if str(each) in reason), address.sockets[0])
        hint = permission_hint(socket) + "; unix_sock_group in libvirtd.conf names the group"
    elif address.remote:
        hint = f"try it by hand: virsh -c {address.uri} list"
    return ConnectError(f"cannot connect to {address.uri}: {reason}", hint=hint)


def translated(error: Any, address: LibvirtAddress) -> VmconnectError:
    """Return libvirt's error as one of ours."""
    library = load()
    reason, code = str(error), error.get_error_code()
    kinds: dict[int, type[VmconnectError]] = {
        library.VIR_ERR_NO_DOMAIN: MachineNotFoundError,
        library.VIR_ERR_NO_DOMAIN_SNAPSHOT: TargetError,
        library.VIR_ERR_NO_SUPPORT: UnsupportedError,
        library.VIR_ERR_OPERATION_UNSUPPORTED: UnsupportedError,
        library.VIR_ERR_CONFIG_UNSUPPORTED: UnsupportedError,
        library.VIR_ERR_ARGUMENT_UNSUPPORTED: UnsupportedError,
        library.VIR_ERR_OPERATION_DENIED: AuthenticationError,
        library.VIR_ERR_ACCESS_DENIED: AuthenticationError,
        library.VIR_ERR_AUTH_FAILED: AuthenticationError,
        library.VIR_ERR_AGENT_UNRESPONSIVE: DeadlineError,
    }
    kind = kinds.get(code, HypervisorError)
    if _AGENT_REFUSED in reason:
        # The agent's own word for it is not passed on, only what it says in English.
        unknown = "has not been found" in reason or "has been disabled" in reason
        kind = UnsupportedError if unknown else GuestError
    if any(words in reason for words in _LOST):
        kind = ConnectionLostError
    return kind(f"{address.uri}: {reason}")
