"""The other end of a copy: this runs in the guest, in its own Python (3.7 or later), alone.

Standard input gives the request, and the frames if vsock cannot be had; standard output tells the
port that is listened on, and takes the frames likewise. What is said of a request is at `serve`.

Modules that most copies do not need are not imported: each costs an emulated guest milliseconds.
"""

from __future__ import annotations

import marshal
import os
import select
import struct
import time

from vmconnect.direct.copy.ahead import FramesAhead
from vmconnect.direct.copy.ends import measure, open_destination, send_sources
from vmconnect.direct.copy.frames import Fault, FrameError, Kind, pack_fault
from vmconnect.direct.copy.pipe import Pipe
from vmconnect.direct.copy.reader import FrameReader
from vmconnect.direct.copy.receiver import Named, Receiver, StoppedError
from vmconnect.direct.copy.sender import Sender

TYPE_CHECKING = False  # typing's own takes an emulated guest a tenth of a second to import
if TYPE_CHECKING:
    from typing import Any

    from vmconnect.direct.copy.frames import Bytes

LENGTH = struct.Struct(">I")
TOKEN_BYTES = 32
GREETING = b"\0vmconnect copy\0"
"""What is said before the port; a shell may have said something of its own before that."""
OVER_SSH = b"S"
"""What the near end says when it has not come by vsock."""
_ANY = 0xFFFFFFFF
_ACCEPT_SECONDS = 30.0
_TOKEN_SECONDS = 2.0
_DRAIN_SECONDS = 30.0


def main() -> None:
    """Read the request, find the way, and serve."""
    request: dict[str, Any] = marshal.loads(  # noqa: S302 (the host's)
        _exactly(0, LENGTH.unpack(_exactly(0, 4))[0])
    )
    reading, writing = 0, 1
    listener = _listen() if request["listen"] else None
    port = listener.getsockname()[1] if listener else 0
    _write_all(1, GREETING + LENGTH.pack(port))
    if listener is not None:
        descriptor = _accept(listener, request["token"], request["proof"])
        listener.close()
        if descriptor is None:
            return
        if descriptor:
            reading = writing = descriptor
    elif _exactly(0, 1) != OVER_SSH:
        return

    def read_into(view: memoryview) -> int:
        return os.readv(reading, [view])

    def write(*buffers: Bytes) -> None:
        _write_all(writing, *buffers)

    # A sender is told next to nothing.
    frames = FramesAhead if request["verb"] == "receive" else FrameReader
    pipe = Pipe(frames(read_into).take, write)
    try:
        serve(request, pipe)
    except (OSError, EOFError):
        pass  # Nobody is there any more.


def serve(request: dict[str, Any], pipe: Pipe) -> None:
    """Send or receive, as the request has it.

    Of a sender: ``paths``, ``sync``, ``special``, ``total`` (whether to count first). Of a
    receiver: ``destination``, ``names``, ``special``.
    """
    if request["verb"] == "send":
        _send(request, pipe)
    else:
        _receive(request, pipe)


def _send(request: dict[str, Any], pipe: Pipe) -> None:
    def ask(kind: int, payload: Bytes) -> tuple[int, memoryview]:
        pipe.put(kind, payload)
        pipe.flush()
        return pipe.take()

    sender = Sender(pipe.put, ask, sync=request["sync"], special=request["special"])
    paths = request["paths"]
    if request["total"]:
        sender.total(*measure(paths))
        pipe.flush()
    send_sources(sender, paths)
    sender.done()


def _receive(request: dict[str, Any], pipe: Pipe) -> None:
    names = [Named(*each) for each in request["names"]]
    destination = request["destination"]

    def fail(fault: Fault) -> None:
        pipe.put(Kind.FAILED, pack_fault(fault))

    try:
        root, names, path = open_destination(destination, names)
    except OSError as error:
        fault = Fault(destination, error.errno or 0, error.strerror or str(error))
        _give_up(pipe, fault)
        return
    # A guest may be reset at any moment.
    receiver = Receiver(root, path, names, fail, special=request["special"], durable=True)
    try:
        done = False
        while not done:
            kind, payload = pipe.take()
            answer = receiver.take(kind, payload)
            if answer is not None:
                pipe.put(*answer)
                pipe.flush()
                done = answer[0] == Kind.SUM
    except StoppedError as stopped:
        _give_up(pipe, stopped.fault)
    except FrameError as error:
        _give_up(pipe, Fault(b"", 0, str(error)))
    finally:
        receiver.close()


def _give_up(pipe: Pipe, fault: Fault) -> None:
    """Tell why nothing more can be done, and read on for a while so that it is heard."""
    pipe.put(Kind.FATAL, pack_fault(fault))
    pipe.flush()
    until = time.monotonic() + _DRAIN_SECONDS
    try:
        while time.monotonic() < until:
            pipe.take()
    except FrameError:
        pass


def _listen() -> Any:
    """Return a socket that listens on a vsock port of the system's choice, None without vsock."""
    try:
        import _socket

        listener = _socket.socket(_socket.AF_VSOCK, _socket.SOCK_STREAM)
        listener.bind((_ANY, _ANY))
        listener.listen(8)
    except (ImportError, AttributeError, OSError):
        return None
    return listener


def _accept(listener: Any, token: bytes, proof: bytes) -> int | None:
    """Return the connection of who has the token, 0 for the SSH channel, None for nobody."""
    until = time.monotonic() + _ACCEPT_SECONDS
    poller = select.poll()
    poller.register(0, select.POLLIN)
    poller.register(listener.fileno(), select.POLLIN)
    while time.monotonic() < until:
        ready = dict(poller.poll(1000))
        if 0 in ready:
            return 0 if os.read(0, 1) == OVER_SSH else None
        if listener.fileno() in ready:
            descriptor: int = listener._accept()[0]
            if _is_token(descriptor, token):
                _write_all(descriptor, proof)
                return descriptor
            os.close(descriptor)
    return None


def _is_token(descriptor: int, token: bytes) -> bool:
    """Return whether the token comes, and soon; in a time that tells nothing of it."""
    os.set_blocking(descriptor, False)
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    until = time.monotonic() + _TOKEN_SECONDS
    told = b""
    while len(told) < len(token):
        left = until - time.monotonic()
        if left <= 0 or not poller.poll(left * 1000):
            return False
        try:
            data = os.read(descriptor, len(token) - len(told))
        except OSError:
            return False
        if not data:
            return False
        told += data
    os.set_blocking(descriptor, True)
    difference = 0
    for place, byte in enumerate(told):
        difference |= byte ^ token[place]
    return not difference


def _exactly(descriptor: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = os.read(descriptor, count - len(data))
        if not more:
            raise SystemExit
        data += more
    return data


def _write_all(descriptor: int, *buffers: Bytes) -> None:
    views = [memoryview(each) for each in buffers]
    while views:
        count = os.writev(descriptor, views)
        while views and count >= len(views[0]):
            count -= len(views.pop(0))
        if views:
            views[0] = views[0][count:]
