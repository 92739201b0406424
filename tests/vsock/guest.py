"""Linux's side of vsock in small: a guest whose ports behave as tests need them."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from vmconnect.vsock.packet import Header, Op, Shutdown

from .rig import Machine

__all__ = ["DEAF", "ECHO", "NOISE", "SINK", "SOURCE", "Guest"]

ECHO, SINK, SOURCE, DEAF = 7, 9, 19, 13
NOISE = hashlib.shake_128(b"vmconnect").digest(10_000_000)

_WINDOW = 1 << 16
_PAYLOAD = 8000


class _Connection:
    def __init__(self, behaviour: int, guest_port: int, host_port: int, header: Header):
        self.behaviour = behaviour
        self.ports = guest_port, host_port
        self.alloc, self.freed = header.buf_alloc, header.fwd_cnt
        self.sent = self.taken = self.told = 0
        self.digest = hashlib.sha256()
        self.outbox: deque[memoryview] = deque()
        self.over = False  # an end of data follows the outbox
        self.ended = False
        if behaviour == SOURCE:
            self.outbox.append(memoryview(NOISE))
            self.over = True


class Guest:
    """Serves its ports in a thread: ECHO, SINK (answers a digest), SOURCE (of NOISE), DEAF."""

    def __init__(self, machine: Machine):
        self._machine = machine
        self._connections: dict[tuple[int, int], _Connection] = {}
        self._asked: dict[tuple[int, int], int] = {}
        self._to_connect: deque[tuple[int, int, int]] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="guest")
        self.failed: list[BaseException] = []
        self.most_outstanding = 0
        """The most bytes that a connection ever held that had not been taken: never > a window."""

    def connect(self, behaviour: int, guest_port: int, host_port: int) -> None:
        """Let the guest connect to a port of the host's, and behave."""
        self._to_connect.append((behaviour, guest_port, host_port))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self.failed and error is None:
            raise self.failed[0]

    @contextlib.contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:  # noqa: BLE001 (raised again where the guest is left)
            self.failed.append(error)

    def _run(self) -> None:
        with self._noting_failure():
            while not self._stop.is_set():
                while self._to_connect:
                    behaviour, guest_port, host_port = self._to_connect.popleft()
                    self._asked[guest_port, host_port] = behaviour
                    self._machine.send(Op.REQUEST, guest_port, host_port, buf_alloc=_WINDOW)
                busy = any(map(self._can_send, self._connections.values()))
                packet = self._machine.receive(0.0 if busy else 0.02)
                if packet is not None:
                    self._take(*packet)
                for connection in list(self._connections.values()):
                    self._pump(connection)

    def _take(self, header: Header, payload: bytes) -> None:
        ports = header.dst_port, header.src_port
        if header.op == Op.REQUEST:
            if header.dst_port in {ECHO, SINK, SOURCE, DEAF}:
                self._connections[ports] = _Connection(header.dst_port, *ports, header)
                self._send(self._connections[ports], Op.RESPONSE)
            else:
                self._machine.send(Op.RST, *ports)
            return
        if header.op == Op.RESPONSE:
            self._connections[ports] = _Connection(self._asked.pop(ports), *ports, header)
            return
        connection = self._connections.get(ports)
        if header.op == Op.RST:
            self._connections.pop(ports, None)
            self._asked.pop(ports, None)
        elif connection is not None:
            connection.alloc, connection.freed = header.buf_alloc, header.fwd_cnt
            self._behave(connection, header, payload)

    def _behave(self, connection: _Connection, header: Header, payload: bytes) -> None:
        match header.op:
            case Op.RW:
                self._data(connection, payload)
            case Op.CREDIT_REQUEST:
                self._send(connection, Op.CREDIT_UPDATE)
            case Op.SHUTDOWN if header.flags & Shutdown.RECEIVE:
                connection.outbox.clear()
                self._end(connection)
            case Op.SHUTDOWN:
                if connection.behaviour == SINK:
                    connection.outbox.append(memoryview(connection.digest.hexdigest().encode()))
                connection.over = True
            case _:
                pass

    def _data(self, connection: _Connection, payload: bytes) -> None:
        if connection.behaviour == DEAF:
            connection.taken += len(payload)
            self.most_outstanding = max(self.most_outstanding, connection.taken)
            return
        connection.taken += len(payload)
        outstanding = connection.taken - connection.told
        self.most_outstanding = max(self.most_outstanding, outstanding)
        if connection.behaviour == ECHO:
            connection.outbox.append(memoryview(payload))
        else:
            connection.digest.update(payload)
        if outstanding > _WINDOW // 2:
            self._send(connection, Op.CREDIT_UPDATE)

    def _can_send(self, connection: _Connection) -> bool:
        return bool(connection.outbox) and self._credit(connection) > 0

    def _credit(self, connection: _Connection) -> int:
        return connection.alloc - ((connection.sent - connection.freed) & 0xFFFF_FFFF)

    def _pump(self, connection: _Connection) -> None:
        if self._can_send(connection):
            data = connection.outbox.popleft()
            count = min(len(data), _PAYLOAD, self._credit(connection))
            if count < len(data):
                connection.outbox.appendleft(data[count:])
            connection.sent += count
            self._send(connection, Op.RW, bytes(data[:count]))
        elif connection.over and not connection.outbox and not connection.ended:
            self._end(connection)

    def _end(self, connection: _Connection) -> None:
        connection.ended = True
        self._send(connection, Op.SHUTDOWN, flags=Shutdown.BOTH)

    def _send(self, connection: _Connection, op: Op, payload: bytes = b"", flags: int = 0) -> None:
        fwd_cnt = 0 if connection.behaviour == DEAF else connection.taken
        connection.told = connection.taken
        self._machine.send(
            op, *connection.ports, payload, flags=flags, buf_alloc=_WINDOW, fwd_cnt=fwd_cnt
        )
