"""``vmconnect vsock-device``: the device as a process."""

from __future__ import annotations

import signal
import sys
from types import FrameType

from vmconnect.vsock.device import VsockDevice

__all__ = ["serve"]


def serve(socket: str, uds: str, cid: int) -> int:
    """Serve a guest until SIGTERM or SIGINT, and return the exit code 0.

    One line on standard error tells when QEMU can be started. Raises ResourceError if a socket
    cannot be created. Only for the main thread, whose signal handlers it borrows.
    """
    device = VsockDevice(socket, uds, cid)

    def end(number: int, frame: FrameType | None) -> None:
        device.stop()

    before = [(number, signal.signal(number, end)) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        device.listen()
        sys.stderr.write(f"ready: {socket} for QEMU, {uds} for vsock to CID {cid}\n")
        sys.stderr.flush()
        device.serve_forever()
    finally:
        device.stop()
        for number, handler in before:
            signal.signal(number, handler)
    return 0
