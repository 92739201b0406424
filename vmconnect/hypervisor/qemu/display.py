"""What a machine's screen and keyboard can be asked by QMP, with no VNC client attached."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence

from vmconnect.deadline import Deadline
from vmconnect.errors import HypervisorError, QmpError, ResourceError, UnsupportedError
from vmconnect.hypervisor.qmp import QmpClient
from vmconnect.secret import Secret
from vmconnect.streams import SocketStream

__all__ = ["open_console", "screenshot", "send_keys", "set_password"]

_PNG = b"\x89PNG\r\n\x1a\n"
# QEMU's largest display surface is 16384 x 16384 pixels; no screen's PNG comes near this.
_MAX_PNG_BYTES = 256 << 20
_MAX_KEYS = 16
# Always the same: QEMU keeps an empty record of every set that it has written a PNG to.
_FDSET = 0x766D63


def screenshot(monitor: QmpClient, deadline: Deadline) -> bytes:
    """Return the first screen as PNG.

    QEMU writes it into memory that we hand it: it may run as another user and in a sandbox, and
    no file of it must stay.
    """
    try:
        memory = os.memfd_create("screenshot", os.MFD_CLOEXEC)
    except OSError as error:
        raise ResourceError(f"no memory for a screenshot: {error.strerror}") from error
    with open(memory, "rb") as file:  # noqa: PTH123 (a descriptor)
        # QEMU looks for a descriptor that is open just as it would open the file.
        writable = os.open(f"/proc/self/fd/{memory}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            monitor.execute("add-fd", descriptor=writable, fdset_id=_FDSET, timeout=deadline)
        finally:
            os.close(writable)
        try:
            monitor.execute(
                "screendump", filename=f"/dev/fdset/{_FDSET}", format="png", timeout=deadline
            )
        except HypervisorError as error:
            if "format" in error.message:
                raise UnsupportedError(
                    "this QEMU writes no PNG", machine=monitor.machine, hint="7.1 and later do"
                ) from error
            raise
        finally:
            with contextlib.suppress(HypervisorError):
                monitor.execute("remove-fd", fdset_id=_FDSET, timeout=deadline)
        image = file.read(_MAX_PNG_BYTES + 1)
    if len(image) > _MAX_PNG_BYTES or not image.startswith(_PNG):
        raise QmpError("QEMU's screenshot is no PNG", machine=monitor.machine)
    return image


def send_keys(monitor: QmpClient, scancodes: Sequence[int], deadline: Deadline) -> None:
    """Press a chord and release it."""
    if not 0 < len(scancodes) <= _MAX_KEYS or not all(0 < code < 256 for code in scancodes):
        raise UnsupportedError(
            f"no chord of keys: {list(scancodes)[:_MAX_KEYS]}",
            machine=monitor.machine,
            hint=f"1 to {_MAX_KEYS} scancodes from 1 to 255",
        )
    keys = [{"type": "number", "data": code} for code in scancodes]
    monitor.execute("send-key", keys=keys, timeout=deadline)


def open_console(monitor: QmpClient, deadline: Deadline) -> SocketStream:
    """Return a connection to the VNC server inside QEMU: one end of a socket pair is its.

    Whoever may ask the monitor needs no VNC password.
    """
    if not monitor.execute("query-vnc-servers", timeout=deadline):
        # add_client would take the connection, and leave it lying.
        raise UnsupportedError(
            "it has no VNC server", machine=monitor.machine, hint="start QEMU with -vnc none"
        )
    ours, theirs = socket.socketpair()
    stream = SocketStream(ours, monitor.machine)
    try:
        with theirs:
            monitor.execute(
                "getfd", descriptor=theirs.fileno(), fdname="vmconnect", timeout=deadline
            )
        # QEMU owns the descriptor from here on, and closes it if it refuses.
        monitor.execute(
            "add_client", protocol="vnc", fdname="vmconnect", skipauth=True, timeout=deadline
        )
    except BaseException:
        stream.close()
        raise
    return stream


def set_password(
    monitor: QmpClient, password: Secret, valid_s: float | None, deadline: Deadline
) -> None:
    """Set the VNC password; QEMU must have been started with ``-vnc ...,password=on``."""
    try:
        monitor.execute(
            "set_password", protocol="vnc", password=password.reveal(), timeout=deadline
        )
        until = "never" if valid_s is None else f"+{max(1, round(valid_s))}"
        monitor.execute("expire_password", protocol="vnc", time=until, timeout=deadline)
    except HypervisorError as error:
        error.hint = "start QEMU with -vnc ...,password=on"
        raise
